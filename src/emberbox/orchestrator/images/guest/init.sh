#!/bin/busybox sh
# First program of the guest: puts the sandbox's file system together and hands over to
# /.emberbox/bin/init. Busybox ash; every applet used here has a link in /bin of this initrd.
PATH=/bin
export PATH

say() { echo "emberbox-init: $*" >/dev/console; }

# Nothing can be repaired from here, so the machine ends and the host reads the reason off the
# console. A reset ends the VMM (QEMU with -no-reboot, Firecracker always).
die() {
    say "$*"
    reboot -f
}

mount -t devtmpfs -o mode=0755,nosuid dev /dev || die "cannot mount /dev"
mount -t proc -o nosuid,nodev,noexec proc /proc || die "cannot mount /proc"
mount -t sysfs -o nosuid,nodev,noexec sys /sys || die "cannot mount /sys"

# A kernel of the operator's own may have any of these built in.
while read -r module; do
    [ -e "/sys/module/${module%.ko}" ] || insmod "/modules/$module" || die "cannot load $module"
done </modules/order

hostname=emberbox
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
    emberbox.hostname=?*) hostname=${word#*=} ;;
    esac
done

# Disks are known by serial. Firecracker sets its own serials, so the order is the fallback.
root=/dev/vda runtime=/dev/vdb scratch=/dev/vdc
for disk in /sys/block/vd*; do
    serial=
    read -r serial <"$disk/serial"
    case $serial in
    root) root=/dev/${disk##*/} ;;
    runtime) runtime=/dev/${disk##*/} ;;
    scratch) scratch=/dev/${disk##*/} ;;
    esac
done 2>/dev/null
for disk in $root $runtime $scratch; do
    [ -b "$disk" ] || die "disk $disk is missing"
done

# noload: the root image has no journal, and one of the operator's own must not be replayed.
mount -t ext4 -o ro,noload "$root" /lower || die "cannot mount the root image $root"
# noinit_itable: the scratch disk is sparse, writing its empty inode tables would fill it.
# discard: what the user deletes becomes a hole in the host's file again.
mount -t ext4 -o rw,discard,noinit_itable "$scratch" /scratch ||
    die "cannot mount the scratch disk $scratch"
first_boot=
if [ ! -d /scratch/upper ]; then
    first_boot=yes
    mkdir /scratch/upper /scratch/work || die "the scratch disk is full"
fi
mount -t overlay -o lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work root /root ||
    die "cannot overlay the scratch disk on the root image"

mkdir -p /root/dev /root/proc /root/sys /root/run /root/tmp /root/etc /root/.emberbox ||
    die "cannot make the directories of the root file system"
mount -t ext4 -o ro,noload "$runtime" /root/.emberbox ||
    die "cannot mount the runtime image $runtime"
[ -x /root/.emberbox/bin/init ] || die "the runtime image has no bin/init"
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts ||
    die "cannot mount /dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 shm /root/dev/shm || die "cannot mount /dev/shm"
mount -t tmpfs -o nosuid,nodev,mode=0755,size=20% run /root/run || die "cannot mount /run"
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,favordynmods cgroup2 /root/sys/fs/cgroup ||
    die "cannot mount cgroup2"
ln -sf /proc/self/fd /root/dev/fd
ln -sf fd/0 /root/dev/stdin
ln -sf fd/1 /root/dev/stdout
ln -sf fd/2 /root/dev/stderr

# The address is the same in every sandbox (protocol 4), so that clones need no new one.
# There is no IPv6 beyond the loopback: without this the kernel looks for routers for a while.
echo 1 >/root/proc/sys/net/ipv6/conf/eth0/disable_ipv6
ip link set lo up &&
    ip addr add 169.254.0.21/30 dev eth0 &&
    ip link set eth0 up &&
    ip route add default via 169.254.0.22 || die "cannot configure eth0"

echo "$hostname" >/root/proc/sys/kernel/hostname
# What the kernel does by itself once or twice a second wakes an idle guest for nothing.
echo 0 >/root/proc/sys/vm/compaction_proactiveness
echo 10 >/root/proc/sys/vm/stat_interval
# The kernel's own figure for this little memory is used up by one watched node_modules.
echo 65536 >/root/proc/sys/fs/inotify/max_user_watches
# Later boots of the same scratch disk keep what the user has made of these files.
if [ -n "$first_boot" ]; then
    chmod 1777 /root/tmp
    rm -f /root/etc/resolv.conf /root/etc/hosts /root/etc/hostname
    echo "nameserver 169.254.0.22" >/root/etc/resolv.conf
    echo "$hostname" >/root/etc/hostname
    printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n' \
        "$hostname" >/root/etc/hosts
fi

exec switch_root -c /dev/console /root /.emberbox/bin/init
die "cannot switch to the root file system"
