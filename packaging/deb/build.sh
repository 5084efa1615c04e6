#!/bin/sh
# Makes mox_VERSION_ARCH.deb from built binaries.
#
#   packaging/deb/build.sh [FOLDER OF BINARIES] [WHERE TO PUT THE PACKAGE]
#
# The binaries of the roles go to a private folder: `httpd` and `smtpd` are names of other programs
# on many systems. Two runs over the same binaries give the same package (SOURCE_DATE_EPOCH).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
binaries=${1:-$root/target/release}
out=${2:-$root/target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
arch=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
install -d "$tree/DEBIAN" "$tree/etc/mox"
install -D -m 755 "$binaries/moxd" "$tree/usr/sbin/moxd"
install -D -m 755 "$binaries/moxctl" "$tree/usr/bin/moxctl"
for role in resolver keyholder parser outbound accountd queue-runner imapd smtpd httpd; do
    install -D -m 755 "$binaries/$role" "$tree/usr/libexec/mox/$role"
done
install -D -m 644 "$root/systemd/mox.service" "$tree/usr/lib/systemd/system/mox.service"
install -D -m 644 "$root/systemd/mox.sysusers" "$tree/usr/lib/sysusers.d/mox.conf"
install -D -m 644 "$root/systemd/mox.tmpfiles" "$tree/usr/lib/tmpfiles.d/mox.conf"
install -D -m 644 "$root/packaging/mox.toml" "$tree/usr/share/doc/mox/examples/mox.toml"
for page in moxd.8 moxctl.8 mox.toml.5; do
    install -d "$tree/usr/share/man/man${page##*.}"
    gzip -9n <"$root/packaging/man/$page" >"$tree/usr/share/man/man${page##*.}/$page.gz"
done

size=$(du -sk "$tree/usr" | cut -f 1)
cat >"$tree/DEBIAN/control" <<CONTROL
Package: mox
Version: $version
Architecture: $arch
Maintainer: mox developers <mox@localhost>
Section: mail
Priority: optional
Installed-Size: $size
Depends: libc6, libgcc-s1, systemd (>= 252)
Provides: mail-transport-agent, imap-server
Conflicts: mail-transport-agent
Description: all-in-one mail server made of small processes that do not trust each other
 SMTP, IMAP and the web, each in processes of their own with their own user, system
 call filter and no more rights than their work needs.
CONTROL
for script in postinst prerm postrm; do
    install -m 755 "$root/packaging/deb/$script" "$tree/DEBIAN/$script"
done
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$tree" "$out/mox_${version}_$arch.deb"
