# Boots a Debian machine of its own: this one's files, on which all changes are lost when the machine ends, and systemd with
# the units of this one's packages, of which none starts that nobody asks for.
#
# Runs in new mount, host name and process namespaces, as their first process, with a name for the machine and one for its
# control group. What runs on the machine are the descendants of its only child's only child. All ends when the standard
# input does.
set -euo pipefail
name=$0
group=$1
cgroups=/sys/fs/cgroup
hierarchies=$(awk '/ - cgroup / { print $5, $NF }' /proc/self/mountinfo)

hostname "$name"
disk=$(mktemp -d /run/disk-XXXXXX)
mount -t tmpfs disk "$disk"
mkdir "$disk"/{upper,work,root}
root=$disk/root
mount -t overlay root -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
# An overlay is no place for the layers of another one.
for directory in run tmp var/lib/docker; do
    mkdir -p "$root/$directory"
    mount -t tmpfs tmpfs "$root/$directory"
done

rm -rf "$root"/etc/systemd/system/* "$root"/lib/systemd/system/*.target.wants "$root"/lib/systemd/system-generators/*
rm -f "$root/etc/fstab"
echo "$name" >"$root/etc/hostname"
# There is no journal.
mkdir -p "$root/etc/systemd/system/service.d" "$root/var/log/services"
printf '[Service]\nStandardOutput=append:/var/log/services/%%N\nStandardError=inherit\n' \
    >"$root/etc/systemd/system/service.d/log.conf"

# The machine sees one control group of this one's: in the unified hierarchy, or in each of version 1 (cgroups(7)).
if [ -z "$hierarchies" ]; then
    mkdir -p "$cgroups/$group"
    # What cannot be passed on the machine does not have.
    for controller in $(cat "$cgroups/cgroup.controllers"); do
        echo "+$controller" 2>/dev/null >"$cgroups/cgroup.subtree_control" || true
    done
else
    while read -r hierarchy _; do
        mkdir -p "$hierarchy/$group"
        for file in cpuset.cpus cpuset.mems; do
            if [ -e "$hierarchy/$file" ]; then cat "$hierarchy/$file" >"$hierarchy/$group/$file"; fi
        done
    done <<<"$hierarchies"
fi

enter_group() {
    if [ -z "$hierarchies" ]; then
        echo 0 >"$cgroups/$group/cgroup.procs"
    else
        while read -r hierarchy _; do echo 0 >"$hierarchy/$group/cgroup.procs"; done <<<"$hierarchies"
    fi
}

mount_groups() {
    if [ -z "$hierarchies" ]; then
        mount -t cgroup2 cgroup2 "$root$cgroups"
        return
    fi
    mount -t tmpfs cgroups "$root$cgroups"
    while read -r hierarchy options; do
        options=${options#rw,}
        mkdir "$root$hierarchy"
        mount -t cgroup -o "${options/#name=/none,name=}" cgroup "$root$hierarchy"
    done <<<"$hierarchies"
    # Or else systemd makes the hierarchies that are missing, for all machines.
    mount -o remount,ro "$root$cgroups"
}

boot() {
    mount_groups
    mount -t proc proc "$root/proc"
    # Of the kernel's parameters only the network's are the machine's own.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount --bind /proc/sys/net "$root/proc/sys/net"
    cd "$root"
    mkdir before
    pivot_root . before
    umount -l /before
    exec env -i container=ringlb-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --log-target=console --show-status=no </dev/null >/var/log/services/systemd 2>&1
}

export cgroups group hierarchies root
export -f enter_group mount_groups boot
unshare --mount --propagation private --pid --fork \
    bash -euc 'enter_group; exec unshare --cgroup bash -euc boot' &
echo ready
read -r _
