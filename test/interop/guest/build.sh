#!/bin/bash
# Makes a guest out of Debian packages: an unmodified kernel with rdma_rxe, rdma-core and perftest.
#
#   build.sh OUT [KERNEL]   writes OUT/vmlinuz, OUT/initrd.cpio and OUT/guest.txt (what is in them)
#   build.sh boot OUT       only sees to QEMU, for an image built earlier
#
# KERNEL is a package of trixie or trixie-backports, PACKAGE or PACKAGE/SUITE; by default the newest.
# Packages are only unpacked: nothing of theirs is installed here, and no file of apt's is touched
# (a private apt view below OUT/apt reads trixie and trixie-backports from this machine's mirror).
# The host needs qemu-system-x86 (to boot) and kmod cpio xz-utils gcc libc6-dev (to build); as root
# they are installed with apt-get, else it says which are missing.
# Exit status: 0 built, 4 packages could not be had, 1 anything else.
set -euo pipefail
export LC_ALL=C
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOST_PACKAGES='qemu-system-x86 kmod cpio xz-utils gcc libc6-dev debian-archive-keyring'
ROOT_PACKAGES='busybox-static iproute2 ibverbs-utils ibverbs-providers perftest libibverbs-dev'
# rxe asks the crypto API for "crc32" in kernels before 6.16, and no module dependency says so.
MODULES='virtio_net crc32_generic crc32-pclmul rdma_rxe ib_uverbs rdma_ucm'
# Where those and all they depend on live: the rest of the kernel package is not unpacked.
MODULE_FOLDERS='drivers/infiniband drivers/net/virtio_net* drivers/net/net_failover* net lib crypto arch/x86 fs/configfs'

# A mirror that cannot be reached is found out within a minute.
PATIENCE=(-o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1)

note() { echo "guest: $*" >&2; }
no_packages() { note "packages cannot be had: $*"; exit 4; }

missing() {
	local package
	for package in $HOST_PACKAGES; do
		dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
	done
}

host() {
	local lacking
	command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || no_packages 'this is not a Debian machine (no apt-get)'
	[ "$(dpkg --print-architecture)" = amd64 ] || no_packages 'this machine is not amd64'
	lacking=$(missing | xargs)
	[ -n "$lacking" ] || return 0
	[ "$(id -u)" = 0 ] || no_packages "not root; as root: apt-get install --no-install-recommends $lacking"
	note "installing $lacking"
	export DEBIAN_FRONTEND=noninteractive
	# Lists may be old or not there at all: fetched only when the first try fails.
	# shellcheck disable=SC2086
	quietly apt-get install -y --no-install-recommends $lacking && return
	quietly apt-get update && quietly apt-get install -y --no-install-recommends $lacking && return
	tail -n 3 "$OUT/apt.log" >&2
	no_packages "apt-get install $lacking failed"
}
quietly() { timeout 600 "$@" "${PATIENCE[@]}" >>"$OUT/apt.log" 2>&1 </dev/null; }

# apt-get and apt-cache on trixie and trixie-backports.
next() {
	local command=$1
	shift
	timeout 600 "$command" "${PATIENCE[@]}" -o Dir::Etc::sourcelist="$OUT/apt/sources.list" -o Dir::Etc::sourceparts="$OUT/apt/none" \
		-o Dir::Etc::preferences="$OUT/apt/none/no" -o Dir::Etc::preferencesparts="$OUT/apt/none" \
		-o Dir::State::lists="$OUT/apt/lists" -o Dir::Cache="$OUT/apt/cache" -o Dir::State::status="$OUT/apt/status" \
		-o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Acquire::Languages=none "$@" </dev/null
}
apt_view() {
	local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
		grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | sed 's:/* *$::' || true)
	mirror=${mirror:-http://deb.debian.org/debian}
	mkdir -p "$OUT"/apt/{none,lists/partial,cache/archives/partial}
	: >"$OUT/apt/status"
	printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" trixie "$keyring" "$mirror" trixie-backports >"$OUT/apt/sources.list"
	note "reading the package lists of $mirror"
	next apt-get -o APT::Update::Error-Mode=any update >"$OUT/apt.log" 2>&1 ||
		{ tail -n 3 "$OUT/apt.log" >&2; no_packages "no package lists from $mirror"; }
}

userland() {
	local root=$1 folder package applet
	note 'fetching rdma-core and perftest'
	# shellcheck disable=SC2086
	next apt-get -y -d install $ROOT_PACKAGES >>"$OUT/apt.log" 2>&1 ||
		{ tail -n 3 "$OUT/apt.log" >&2; no_packages "$ROOT_PACKAGES"; }
	mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,proc,sys,tmp,run,etc,root,var/tmp}
	for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
	for package in "$OUT"/apt/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink
	done
	# rcpeer is compiled here, against the guest's libibverbs.
	gcc -O2 -Wall -Wextra -isystem "$root/usr/include" -o "$OUT/rcpeer" "$HERE/rcpeer.c" \
		"$root"/usr/lib/x86_64-linux-gnu/libibverbs.so -Wl,--allow-shlib-undefined
	mv "$OUT/rcpeer" "$root/usr/bin/"
	gcc -O2 -Wall -Wextra -static -o "$root/agent" "$HERE/agent.c"
	install -m 755 "$HERE/init" "$root/init"
	# What the guest does not use.
	rm -rf "$root"/usr/{include,share} "$root"/var/{lib,cache} "$root"/usr/lib/{udev,systemd,x86_64-linux-gnu/{gconv,perl*,security,ossl-modules,engines*}} \
		"$root"/etc/{pam*,ssl,security,init.d,default}
	find "$root" -name '*.a' -delete
	for applet in $("$root/usr/bin/busybox" --list); do
		[ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\n' >"$root/etc/group"
}

# The kernel's packages, fetched into folder $1; sets `release`.
fetch_kernel() {
	local into=$1 wanted=$2 image package suite=
	case $wanted in */*) suite=/${wanted##*/} ;; esac
	note "fetching $wanted"
	image=$(next apt-get install --print-uris -y -qq "$wanted" 2>>"$OUT/apt.log" |
		sed -n "s/^'[^']*' \(linux-image-[0-9][^_]*-amd64\)_.*/\1/p" | head -n 1)
	[ -n "$image" ] || no_packages "$wanted"
	release=${image#linux-image-}
	mkdir -p "$into"
	# Newer kernels are split: the image package is then empty.
	for package in "$image" "linux-binary-$release" "linux-modules-$release" "linux-base-$release"; do
		next apt-cache show "$package" >/dev/null 2>&1 || continue
		(cd "$into" && next apt-get -qq download "$package$suite") >>"$OUT/apt.log" 2>&1 || no_packages "$package"
	done
}

# Unpacks the kernel to OUT/vmlinuz and what it needs of its modules, in load order, below folder $2.
kernel() {
	local packages=$1 root=$2 stage=$1/stage folder modules file name
	local -a wanted=()
	for folder in $MODULE_FOLDERS; do wanted+=("*/lib/modules/$release/kernel/$folder"); done
	mkdir -p "$stage"
	for file in "$packages"/*.deb; do
		dpkg-deb --fsys-tarfile "$file" | tar -x -C "$stage" --wildcards "${wanted[@]}" "*/vmlinuz*" "*/modules.builtin*" "*/modules.order" 2>/dev/null || true
	done
	cp "$(find "$stage" -name 'vmlinuz*' -type f | head -n 1)" "$OUT/vmlinuz.new"
	modules=$(dirname "$(find "$stage" -type d -path "*/lib/modules/$release/kernel" | head -n 1)")
	# depmod wants BASE/lib/modules/RELEASE.
	mkdir -p "$stage/base/lib/modules"
	ln -s "$(readlink -f "$modules")" "$stage/base/lib/modules/$release"
	depmod -b "$stage/base" "$release" 2>>"$OUT/apt.log"
	mkdir -p "$root/usr/lib/modules/$release"
	for name in $MODULES; do
		modprobe -d "$stage/base" -S "$release" --show-depends --ignore-install "$name" 2>/dev/null || true
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
		name=$(basename "$file")
		name=${name%.xz}
		case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac >"$root/usr/lib/modules/$release/$name"
		echo "$name" >>"$root/usr/lib/modules/$release/order"
	done
	grep -q rdma_rxe "$root/usr/lib/modules/$release/order" || { note "kernel $release has no rdma_rxe"; exit 1; }
}

build() {
	local release work
	mkdir -p "$OUT"
	host
	work=$(mktemp -d "$OUT/work.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$work' '$OUT/apt'" EXIT
	apt_view
	userland "$work/root"
	fetch_kernel "$work/kernel" "${1:-linux-image-amd64/trixie-backports}"
	kernel "$work/kernel" "$work/root"
	(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$OUT/initrd.cpio.new"
	mv "$OUT/vmlinuz.new" "$OUT/vmlinuz"
	mv "$OUT/initrd.cpio.new" "$OUT/initrd.cpio"
	# Last, because whoever finds it takes the other two for whole.
	{
		echo "kernel $release"
		next apt-cache show ibverbs-utils perftest 2>/dev/null | sed -n 's/^Package: //p; s/^Version: //p' | paste -d ' ' - -
	} >"$OUT/guest.txt"
	note "built: $(paste -sd , "$OUT/guest.txt")"
}

case ${1:-} in
boot) OUT=$2; command -v qemu-system-x86_64 >/dev/null || host ;;
/*) OUT=$1; build "${2:-}" ;;
*) sed -n '2,13p' "${BASH_SOURCE[0]}"; exit 1 ;;
esac
