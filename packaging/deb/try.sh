# The package in the fresh system of .ci/fresh-debian, which reads this file: made, installed, set up
# by the words of docs/operating/first-start.md, run as its unit runs it, removed and purged.
#
# systemd is not running there: its unit is checked by its own programs, and the server is started by
# hand with the limits and variables that the unit gives it. Its journal runs.

# Runs a script as root in the system, without a network.
as_admin() { alone root "bash $1"; }

say "package: build"
# What an earlier try has left.
inside root 'dpkg --purge mox >/dev/null 2>&1 || true; rm -rf /etc/mox /var/lib/mox'
inside root 'export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends openssl python3 man-db >/dev/null'
rm -rf "$root/srv/bins" "$root"/srv/*.deb
mkdir "$root/srv/bins"
chroot "$root" chown dev:dev /srv/bins
# Debug builds, as they are there already; without the debug information they have the size of a
# package.
inside dev 'for role in moxd moxctl resolver keyholder parser outbound accountd queue-runner imapd smtpd httpd; do
        strip -o /srv/bins/$role target/debug/$role; done
    DPKG_DEB_COMPRESSOR_TYPE=none SOURCE_DATE_EPOCH='"$(git -C "$repository" log -1 --format=%ct)"' packaging/deb/build.sh /srv/bins /srv/bins >/dev/null'

say "package: install"
inside root 'export DEBIAN_FRONTEND=noninteractive
    find / -xdev \( -path /proc -o -path /srv -o -path /tmp \) -prune -o -print | sort >/srv/before
    apt-get install -y -qq --no-install-recommends /srv/bins/mox_*.deb >/dev/null
    dpkg -s mox | grep -q "^Status: install ok installed"'

say "package: users, folders, modes"
cat >"$root/srv/look.sh" <<'LOOK'
set -euo pipefail
# Each line of tmpfiles is a folder with that owner and mode.
while read -r kind path mode user group _; do
    [ "$kind" = d ] || continue
    found=$(stat -c '%a %U %G' "$path")
    [ "$found" = "${mode#0} $user $group" ] || { echo "$path: $found, not $mode $user $group"; exit 1; }
done </usr/lib/tmpfiles.d/mox.conf
grep '^u ' /usr/lib/sysusers.d/mox.conf | while read -r _ name _; do
    entry=$(getent passwd "$name")
    case $entry in *:/usr/sbin/nologin) ;; *) echo "$entry: can log in"; exit 1 ;; esac
    [ "$(id -Gn "$name")" = "$name" ] || { echo "$name is in groups: $(id -Gn "$name")"; exit 1; }
done
getent group mox-admin >/dev/null
for page in moxd.8 moxctl.8 mox.toml.5; do
    man --warnings -E UTF-8 -l "/usr/share/man/man${page##*.}/$page.gz" 2>&1 >/dev/null | tee /tmp/man.said
    [ ! -s /tmp/man.said ] || exit 1
done
find /usr/libexec/mox /usr/sbin/moxd /usr/bin/moxctl \( ! -user root -o -perm /022 -o -perm /7000 \) | grep . && exit 1
systemd-analyze verify /usr/lib/systemd/system/mox.service 2>&1 | tee /tmp/verify.said
[ ! -s /tmp/verify.said ] || exit 1
systemd-analyze security --offline=true --no-pager --threshold=25 mox.service | tail -n 1
LOOK
as_admin /srv/look.sh || fail "what the package put there"

say "package: first start"
cat >"$root/srv/start.sh" <<'START'
set -euo pipefail
# 3. The example, with what an administrator changes.
install -d -m 0755 /etc/mox/tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=mail.example.org \
    -addext subjectAltName=DNS:mail.example.org -keyout /etc/mox/tls/key.pem -out /etc/mox/tls/cert.pem 2>/dev/null
sed -e 's/^ips = \["192.*\]/ips = ["127.0.0.2"]/' -e 's/^ips = \["127.0.0.1", "::1"\]/ips = ["127.0.0.1"]/' \
    -e 's/^account = "admin"/account = "ann"/' /usr/share/doc/mox/examples/mox.toml >/etc/mox/mox.toml
# 4.
moxctl config test
# 5. As systemd would: its journal, and the unit's limits.
rm -rf /run/systemd/journal /run/mox
mkdir -p /run/systemd/journal
/lib/systemd/systemd-journald &
for _ in $(seq 100); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.1; done
systemd-tmpfiles --create mox.conf
limits=$(sed -n 's/^CapabilityBoundingSet=//p' /usr/lib/systemd/system/mox.service | tr 'A-Z' 'a-z' | sed 's/cap_/+/g; s/ /,/g')
(umask 0077; ulimit -n "$(ulimit -H -n)"; ulimit -c 0
    exec env -i PATH=/usr/sbin:/usr/bin JOURNAL_STREAM=0:0 RUNTIME_DIRECTORY=/run/mox STATE_DIRECTORY=/var/lib/mox \
        setpriv --no-new-privs --inh-caps=-all --bounding-set="-all,$limits" /usr/sbin/moxd serve) &
server=$!
whole() {
    moxctl processes >/tmp/table 2>/dev/null || return 1
    [ "$(grep -c serving /tmp/table)" -ge 12 ] && ! awk 'NR > 1' /tmp/table | grep -qv serving
}
for _ in $(seq 150); do whole && break; sleep 0.2; done
whole || { moxctl processes; journalctl --no-pager | tail -n 50; exit 1; }
# 6.
moxctl confine test >/tmp/confine; if grep ALLOWED /tmp/confine; then exit 1; fi
moxctl processes | awk 'NR > 1 { print $1 }' | sort >/tmp/roles
# 7.
moxctl domain add example.org
printf 'a good password\n' | moxctl account add ann ann@example.org
moxctl address add postmaster@example.org ann
[ "$(moxctl status | grep -c '_domainkey.example.org: ')" = 2 ]
# Mail comes in, and is read as a mail program is told to.
printf 'From: bob@example.net\r\nMessage-ID: <first-mail@example.net>\r\nSubject: first\r\n\r\nhello\r\n' >/tmp/mail
curl -sS smtp://127.0.0.2:25 --mail-from bob@example.net --mail-rcpt postmaster@example.org -T /tmp/mail
curl -sS --cacert /etc/mox/tls/cert.pem --resolve mail.example.org:993:127.0.0.2 \
    --user 'ann@example.org:a good password' 'imaps://mail.example.org/INBOX;MAILINDEX=1' >/tmp/read
grep -q '^hello' /tmp/read
curl -sS --cacert /etc/mox/tls/cert.pem --resolve mail.example.org:443:127.0.0.2 https://mail.example.org/ >/tmp/page
grep -q IMAP /tmp/page
curl -sS http://127.0.0.1:8010/metrics >/tmp/metrics
grep -q '^mox' /tmp/metrics
# One message through the processes, from the journal.
journalctl --sync 2>/dev/null || true
for _ in $(seq 50); do
    moxctl log follow --once '<first-mail@example.net>' >/tmp/followed
    grep -q 'session is over\|disconnected' /tmp/followed && break
    sleep 0.2
done
cat /tmp/followed
for process in smtpd-mx accountd; do grep -q "^$process " /tmp/followed; done
journalctl -t mox-smtpd-mx --no-pager >/tmp/journal
grep -q connected /tmp/journal
# A member of the group may, others may not.
useradd eve; useradd -G mox-admin adam
moxctl reload
setpriv --reuid adam --regid adam --init-groups moxctl status >/dev/null
code=0; setpriv --reuid eve --regid eve --init-groups moxctl status 2>/tmp/eve || code=$?
[ "$code" = 4 ] || { cat /tmp/eve; echo "eve got $code"; exit 1; }
moxctl stop
wait "$server"
code=0; moxctl status 2>/dev/null || code=$?
[ "$code" = 3 ]
echo 'first start: done'
START
as_admin /srv/start.sh || fail "the words of docs/operating/first-start.md"

say "package: remove, purge"
inside root 'export DEBIAN_FRONTEND=noninteractive
    apt-get remove -y -qq mox >/dev/null
    test -e /etc/mox/mox.toml -a -e /var/lib/mox/accountd/accountd.db -a ! -e /usr/sbin/moxd
    apt-get purge -y -qq mox | grep "mail and keys are still"
    find / -xdev \( -path /proc -o -path /srv -o -path /tmp \) -prune -o -print | sort >/srv/after
    comm -13 /srv/before /srv/after >/srv/left'
left=$(grep -vE '^(/etc/mox|/var/lib/mox|/run/mox)(/|$)|^/var/(log|cache|lib/(apt|dpkg|systemd))/|^/run/|^/etc/(passwd|group|shadow|gshadow|subuid|subgid)|^/var/mail/|^/home/' \
    "$root/srv/left" | grep -i mox || true)
[ -z "$left" ] || { echo "$left"; fail "left behind by purge"; }
say "package: done"
