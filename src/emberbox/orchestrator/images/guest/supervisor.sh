#!/.emberbox/bin/busybox sh
# PID 1 of the guest: starts envd, starts it again when it ends, and reaps orphans (ash waits for
# any child, so those that the kernel hands to PID 1 are collected while it waits for envd).
# SIGTERM to PID 1 ends the machine. A reset ends the VMM as in the initrd's init.
busybox=/.emberbox/bin/busybox
envd=

end() {
    [ -z "$envd" ] || kill -TERM "$envd" 2>/dev/null
    $busybox sync
    $busybox reboot -f
}
trap end TERM

cd /
while :; do
    $busybox env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /.emberbox/bin/envd </dev/null &
    envd=$!
    wait "$envd"
    echo "emberbox-init: envd ended with status $?, starting it again"
    # A daemon that cannot start must not take the whole processor.
    $busybox sleep 0.2
done
