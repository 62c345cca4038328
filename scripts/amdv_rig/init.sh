#!/bin/sh
# The rig's /init: loads modules, puts a tmpfs over the host's file system, runs one command in it, reports, ends.
#
# /rig/settings (variables), /rig/modules ("path params" a line, in order) and /rig/job (the command) come with each
# run. Ports: 1 status (lines: "ready UPTIME", "exit STATUS UPTIME", "fail REASON"), 2 standard output, 3 standard
# error, 4 standard input; hvc0 instead of 2 to 4 for a terminal. Every output ends with the run's own end marker.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
. /rig/settings

reporting=
open_status_port() {
    # A port has one opener at a time: this shell, on descriptor 9.
    if [ -z "$reporting" ] && [ -e /dev/vport0p1 ]; then
        exec 9>/dev/vport0p1
        reporting=1
    fi
}

finish() {
    # The host ends the machine when it has read all; this is for a host that does not.
    [ -n "$reporting" ] && sleep 20
    poweroff -f
}

fail() {
    echo "rig: $*" >&2
    open_status_port
    [ -n "$reporting" ] && echo "fail $*" >&9
    finish
}

uptime_now() {
    read -r now _ </proc/uptime
}

while read -r path params; do
    # shellcheck disable=SC2086 # parameters are words
    insmod "/lib/modules/$path" $params || fail "cannot load module $path $params"
done </rig/modules

tries=0
until open_status_port && [ -n "$reporting" ]; do
    tries=$((tries + 1))
    [ $tries -gt 500 ] && fail "no status port"
    usleep 10000
done

[ -e /dev/kvm ] || { dmesg | grep -i kvm; fail "kvm_amd made no /dev/kvm"; }

# Until the job's end: see hold_vm.c.
mkfifo /held
hold_vm >/held &
read -r held </held && [ "$held" = held ] || fail "cannot make a VM"

mount -t virtiofs -o ro host0 /host || fail "cannot mount the host's file system"
mount -t tmpfs -o mode=755 tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail "cannot mount the overlay"
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t debugfs debugfs /new/sys/kernel/debug
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/pts /new/dev/shm /new/dev/hugepages
mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t tmpfs -o mode=755 tmpfs /new/run
ln -sf /proc/self/fd /new/dev/fd
ln -sf /proc/self/fd/0 /new/dev/stdin
ln -sf /proc/self/fd/1 /new/dev/stdout
ln -sf /proc/self/fd/2 /new/dev/stderr
if [ -d "/new$modules_tree" ] && [ ! -e "/new/lib/modules/$kernel_version" ]; then
    mkdir -p /new/lib/modules
    ln -s "$modules_tree" "/new/lib/modules/$kernel_version"
fi
ifconfig lo 127.0.0.1 up
hostname pyhv-rig

if [ "$hugepages" != 0 ]; then
    reserved=$(cat /proc/sys/vm/nr_hugepages)
    [ "$reserved" = "$hugepages" ] || fail "the kernel reserved $reserved of $hugepages hugepages: give more --memory"
    mount -t hugetlbfs hugetlbfs /new/dev/hugepages
fi
if [ -n "$artifacts" ]; then
    mkdir -p "/new$artifacts"
    mount -t virtiofs artifacts "/new$artifacts" || fail "cannot mount the artifacts' directory"
fi
mkdir /new/run/rig
cp /rig/job /new/run/rig/job

kill_all_inside() {
    # A process that was left behind would keep the outputs open.
    for _ in 1 2 3 4 5; do
        found=
        for process in /proc/[0-9]*; do
            if [ "$process/root" -ef /new ]; then
                kill -9 "${process#/proc/}" 2>/dev/null && found=1
            fi
        done
        [ -n "$found" ] || return
    done
}

uptime_now
echo "ready $now" >&9

if [ -n "$tty" ]; then
    (
        stty sane rows "$rows" cols "$columns"
        exec setsid -c chroot /new /bin/sh /run/rig/job
    ) <>/dev/hvc0 >&0 2>&1 9>&-
    status=$?
    kill_all_inside
    printf "$end_marker" >/dev/hvc0
else
    mkfifo /rw/stdout /rw/stderr
    cat </rw/stdout >/dev/vport0p2 &
    relay_stdout=$!
    cat </rw/stderr >/dev/vport0p3 &
    relay_stderr=$!
    exec 7>/rw/stdout 8>/rw/stderr
    [ -n "$merge_stderr" ] && exec 8>&7
    input=/dev/null
    [ -n "$stdin" ] && input=/dev/vport0p4
    # A subshell: this shell's own word on a killed command belongs on the console, not in the command's output.
    (exec setsid chroot /new /bin/sh /run/rig/job) <$input >&7 2>&8 7>&- 8>&- 9>&-
    status=$?
    exec 7>&- 8>&-
    kill_all_inside
    wait $relay_stdout $relay_stderr
    printf "$end_marker" >/dev/vport0p2
    printf "$end_marker" >/dev/vport0p3
fi
uptime_now
echo "exit $status $now" >&9
finish
