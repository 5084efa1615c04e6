"""imaplib against mox: a day of a mail program. Prints "done"."""

import imaplib
import os
import smtplib
import ssl
import time

HOST = os.environ["MOX_HOST"]
USER = os.environ["MOX_USER"]
PASSWORD = os.environ["MOX_PASSWORD"]
TLS = ssl.create_default_context(cafile=os.environ["MOX_CERT"])
TLS.check_hostname = False  # the address is one of 127/8, the name in it is localhost
PORT = {n: int(os.environ[f"MOX_PORT_{n}"]) for n in (25, 143, 993)}
TEXT = ("From: Ann <ann@example.org>\r\nTo: {user}\r\nSubject: number {n}\r\n"
        "Message-ID: <{n}@example.org>\r\n\r\nText of {n}: needle{n}\r\n")


def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


def body(data):
    return next(item[1] for item in data if isinstance(item, tuple))


# Three ways in: LOGIN in clear, AUTHENTICATE PLAIN after STARTTLS, LOGIN under TLS.
with imaplib.IMAP4(HOST, PORT[143]) as server:
    ok(server.login(USER, PASSWORD))
server = imaplib.IMAP4(HOST, PORT[143])
ok(server.starttls(ssl_context=TLS))
ok(server.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode()))
server.logout()
try:
    with imaplib.IMAP4_SSL(HOST, PORT[993], ssl_context=TLS) as server:
        server.login(USER, "wrong")
    raise AssertionError("a wrong password was taken")
except imaplib.IMAP4.error as error:
    assert "AUTHENTICATIONFAILED" in str(error), error

server = imaplib.IMAP4_SSL(HOST, PORT[993], ssl_context=TLS)
ok(server.login(USER, PASSWORD))
capabilities = set(ok(server.capability())[0].upper().split())
assert {b"IMAP4REV1", b"IDLE", b"MOVE", b"UIDPLUS", b"LITERAL+"} <= capabilities, capabilities

# Mailboxes, with characters that IMAP4rev1 writes in its own UTF-7.
folders = b"\n".join(ok(server.list()))
for name in (b"INBOX", b"Sent", b"Drafts", b"Trash"):
    assert name.lower() in folders.lower(), folders
ok(server.create('"Work/Projects &AOQ-"'))
ok(server.rename('"Work/Projects &AOQ-"', "Work/Done"))
ok(server.subscribe("Work/Done"))
assert b"Work/Done" in b"\n".join(ok(server.lsub()))
assert server.select("Nowhere")[0] == "NO"

# APPEND with flags and date; what comes back is what was given.
assert ok(server.select())[0] == b"0"
when = time.localtime(1_700_000_000)
for n in range(1, 6):
    text = TEXT.format(user=USER, n=n).encode()
    flags = r"(\Flagged $label)" if n == 2 else None
    answer = ok(server.append("INBOX", flags, imaplib.Time2Internaldate(when), text))
    assert b"APPENDUID" in answer[0], answer
ok(server.noop())
assert server.response("EXISTS")[1][-1] == b"5"
assert body(ok(server.fetch("3", "(BODY.PEEK[])"))) == TEXT.format(user=USER, n=3).encode()
assert body(ok(server.fetch("3", "(BODY.PEEK[TEXT]<5.6>)"))) == b"of 3: "
dates = ok(server.fetch("1", "(INTERNALDATE RFC822.SIZE UID)"))[0]
assert time.mktime(imaplib.Internaldate2tuple(dates)) == time.mktime(when), dates
assert {b"\\Flagged", b"$label"} <= set(imaplib.ParseFlags(ok(server.fetch("2", "(FLAGS)"))[0]))

# Flags.
assert b"\\Seen" not in ok(server.fetch("1", "(FLAGS)"))[0]
ok(server.fetch("1", "(BODY[])"))
assert b"\\Seen" in ok(server.fetch("1", "(FLAGS)"))[0]
assert b"\\Answered" in ok(server.store("1:2", "+FLAGS", r"(\Answered)"))[0]
ok(server.store("2", "-FLAGS.SILENT", r"(\Answered $label)"))
assert b"\\Answered" not in ok(server.fetch("2", "(FLAGS)"))[0]
ok(server.store("4", "FLAGS", r"(\Deleted)"))

# Search.
for criteria, expected in (
    (("ALL",), b"1 2 3 4 5"), (("FLAGGED",), b"2"), (("UNSEEN", "UNDELETED"), b"2 3 5"),
    (("TEXT", "needle5"), b"5"), (("BODY", "NEEDLE1"), b"1"), (("SUBJECT", '"number 3"'), b"3"),
    (("FROM", "ann@example.org", "NOT", "2:4"), b"1 5"), (("HEADER", "Message-ID", "<2@"), b"2"),
    (("OR", "ANSWERED", "DELETED"), b"1 4"), (("SINCE", "01-Jan-2024"), b""),
    (("BEFORE", "01-Jan-2024", "LARGER", "10"), b"1 2 3 4 5"), (("TEXT", "nothing"), b""),
):
    found = ok(server.search(None, *criteria))
    assert found == [expected], (criteria, found)
assert ok(server.search("UTF-8", "SUBJECT", '"number"')) == [b"1 2 3 4 5"]
assert ok(server.uid("SEARCH", "UID", "2:3")) == [b"2 3"]

# Copy, move, expunge.
ok(server.copy("1,3", "Work/Done"))
assert server.response("COPYUID")[1] != [None]
ok(server.uid("MOVE", "5", "Trash"))
assert server.response("EXPUNGE")[1] == [b"5"]
assert ok(server.status("Trash", "(MESSAGES UNSEEN UIDNEXT)"))[0].endswith(
    b"(MESSAGES 1 UNSEEN 1 UIDNEXT 2)")
assert ok(server.expunge()) == [b"4"]
assert ok(server.search(None, "ALL")) == [b"1 2 3"]

# IDLE: imaplib of this age does not know it, so its lines are written by hand.
tag = server._new_tag()
server.send(tag + b" IDLE\r\n")
assert server.readline().startswith(b"+")
with smtplib.SMTP(HOST, PORT[25]) as sender:
    sender.sendmail("ann@example.org", [USER], TEXT.format(user=USER, n=9))
while True:
    line = server.readline()
    assert line, "the connection ended"
    if line == b"* 4 EXISTS\r\n":
        break
server.send(b"DONE\r\n")
while not (line := server.readline()).startswith(tag):
    assert line, "the connection ended"
assert b"OK" in line, line
assert b"needle9" in body(ok(server.fetch("4", "(BODY.PEEK[])")))

# Two sessions: what one does, the other sees.
other = imaplib.IMAP4(HOST, PORT[143])
ok(other.login(USER, PASSWORD))
ok(other.select("INBOX"))
ok(other.store("4", "+FLAGS", r"(\Deleted)"))
ok(other.expunge())
ok(server.noop())
assert server.response("EXPUNGE")[1] == [b"4"]
other.logout()

ok(server.close())
ok(server.delete("Work/Done"))
server.logout()
print("done")
