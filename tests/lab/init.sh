#!/bin/busybox sh
# The first process of a node. Its root is the machine's files, which it sees with changes of its own in memory. The
# kernel passes what its command line says as NAME=VALUE in the environment: address, folder, python, modules.
B=/bin/busybox
$B mount -t proc proc /proc
M=$modules/$($B uname -r)/kernel
$B mount -t tmpfs tmpfs /tmp
$B mkdir /tmp/changes /tmp/work /tmp/root
for one in fs/overlayfs/overlay lib/crc-ccitt net/llc/llc net/802/stp net/802/psnap net/ipv6/ipv6 net/bridge/bridge \
    drivers/net/veth drivers/net/ipvlan/ipvlan drivers/net/macvlan; do
    [ ! -e "$M/$one.ko" ] || $B insmod "$M/$one.ko" || echo "no module $one"
done
R=/tmp/root
$B mount -t overlay -o lowerdir=/,upperdir=/tmp/changes,workdir=/tmp/work overlay $R || exec $B poweroff -f
$B mount -t proc proc $R/proc
$B mount -t sysfs sys $R/sys
$B mount -t devtmpfs dev $R/dev || $B mount -t tmpfs dev $R/dev
for one in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9; do
    IFS=: read -r name major minor <<TEXT
$one
TEXT
    [ -e $R/dev/$name ] || $B mknod -m 666 $R/dev/$name c $major $minor
done
for one in tmp run dev/shm; do $B mkdir -p $R/$one; $B mount -t tmpfs tmpfs $R/$one; done
# Not chroot alone: whoever enters a mount namespace would be back at the old root.
cd $R
$B mkdir -p former
$B pivot_root . former
exec $B chroot . /bin/busybox sh -c '
    /bin/busybox umount -l /former
    export PATH=/usr/sbin:/sbin:/usr/bin:/bin HOME=/root PYTHONPATH=$folder
    ip link set lo up
    ip link set vec0 name eth0
    ip link set vec1 name ens5
    ip link set eth0 up
    ip link set ens5 up
    ip address add $address/24 dev eth0
    hostname $node
    cd /
    exec $python -m tests.lab.node_server'
