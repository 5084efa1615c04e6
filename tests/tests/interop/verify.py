"""Verifies each DKIM signature of a message with dkimpy; the records come from a file of
"NAME TEXT" lines. Prints the algorithm of each signature that is right, in their order."""

import sys

import dkim

records = {}
with open(sys.argv[2], encoding="ascii") as lines:
    for line in lines:
        name, text = line.rstrip("\n").split(" ", 1)
        records[name] = text.encode()


def lookup(name, timeout=5):
    return records.get(name.decode().rstrip("."))


with open(sys.argv[1], "rb") as file:
    message = file.read()
signatures = sum(name.lower() == b"dkim-signature" for name, _ in dkim.rfc822_parse(message)[0])
for index in range(signatures):
    checked = dkim.DKIM(message)
    if not checked.verify(idx=index, dnsfunc=lookup):
        sys.exit(f"signature {index} of {signatures} is wrong")
    print(checked.signature_fields[b"a"].decode())
