#!/bin/sh
# The first process of the machine: mounts what a host has, runs each test in a process of its own, says how it went, and ends the machine.
# Lines that begin with "enforcer-tests: " are read by whoever started it; see boot.rs.
export PATH=/usr/sbin:/usr/bin
/usr/bin/busybox --install -s /usr/bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
for module in /modules/*; do insmod "$module" || echo "cannot load $module"; done
# The first process may open few files, and the daemon needs many.
ulimit -n 65536

. /suite/environment
cat > /run/one <<'ONE'
began=$(date +%s)
out=/run/out.$$
if timeout -s KILL 600 "$PROGRAM" --exact "$1" --nocapture > $out 2>&1 && grep -q '^test result: ok. 1 passed' $out; then
    echo "enforcer-tests: ok $1 $(($(date +%s) - began)) s"
    echo "$1" >> /run/passed
else
    echo "enforcer-tests: FAILED $1 $(($(date +%s) - began)) s"
    echo "$1" >> /run/failed
    mv $out "/run/$1"
fi
ONE
touch /run/passed /run/failed
# As many at once as the suite runs on a small host.
xargs -n 1 -P 2 sh /run/one < /suite/tests
while read -r name; do
    echo "enforcer-tests: output of $name"
    tail -n 60 "/run/$name"
    echo "enforcer-tests: end"
done < /run/failed
echo "enforcer-tests: verdict $(wc -l < /run/passed) $(wc -l < /run/failed) $(cut -d . -f 1 /proc/uptime)"
poweroff -f
