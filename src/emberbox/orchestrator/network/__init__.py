"""Network slots: what connects one VM to its host and to the outside, and nothing else.

A slot is a network namespace with a tap for the VM, a veth pair to the host and nftables rules.
Inside every VM the addresses are the same, so a clone of a snapshot needs no reconfiguration.

addresses   constants, `NodeNetwork` (names and addresses of one node), `Slot`
policy      `EgressPolicy`: what a guest may reach
netns       named namespaces, and code that runs inside one
netlink     the message layer of netlink sockets;  links, sets: what we say over it
rules       the text of the nftables rules;  nft: loads it
slots       makes and destroys one slot; tap and sockets inside it
node        what a node sets up once on its host;  firewalls: foreign rules in our way
pool        `SlotPool`: slots made before they are needed
dns         the forwarder that answers at every gateway, a process of its own
"""

from __future__ import annotations
