"""smtplib against mox: every port and mechanism it knows. Prints how many messages were taken."""

import os
import smtplib
import ssl
from email.message import EmailMessage

HOST = os.environ["MOX_HOST"]
USER = os.environ["MOX_USER"]
PASSWORD = os.environ["MOX_PASSWORD"]
TLS = ssl.create_default_context(cafile=os.environ["MOX_CERT"])
TLS.check_hostname = False  # the address is one of 127/8, the name in it is localhost
PORT = {n: int(os.environ[f"MOX_PORT_{n}"]) for n in (25, 465, 587)}
sent = 0


def message(sender, subject, text="Hello,\n.\nbye\n"):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, USER, subject
    mail.set_content(text)
    mail.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream",
                        filename="bytes.bin")
    return mail


def take(server, mail, sender, **more):
    global sent
    refused = server.send_message(mail, from_addr=sender, to_addrs=[USER], **more)
    assert refused == {}, refused
    sent += 1


# A stranger, in clear and with STARTTLS, several messages on one connection.
for starttls in (False, True):
    with smtplib.SMTP(HOST, PORT[25], local_hostname="client.example.org") as server:
        server.ehlo()
        for extension in ("pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes",
                          "starttls"):
            assert server.has_extn(extension), extension
        assert not server.has_extn("auth")
        if starttls:
            server.starttls(context=TLS)
            server.ehlo()
            assert not server.has_extn("starttls")
        take(server, message("ann@example.org", "one"), "ann@example.org")
        take(server, message("ann@example.org", "two"), "ann@example.org",
             mail_options=["BODY=8BITMIME"])
        mail = message("änn@exämple.org", "Grüße", "ü\n")
        take(server, mail, "änn@exämple.org")  # smtplib adds SMTPUTF8 by itself
        assert server.noop()[0] == 250 and server.rset()[0] == 250
        assert server.vrfy(USER)[0] == 252
        code, _ = server.rcpt(USER)
        assert code == 503, code

# A user: STARTTLS and TLS, PLAIN and LOGIN.
for mechanism in ("PLAIN", "LOGIN"):
    for port in (587, 465):
        if port == 465:
            server = smtplib.SMTP_SSL(HOST, port=PORT[port], context=TLS)
        else:
            server = smtplib.SMTP(HOST, PORT[port])
            server.starttls(context=TLS)
        with server:
            server.ehlo()
            offered = server.esmtp_features["auth"].split()
            assert {"PLAIN", "LOGIN", "SCRAM-SHA-256"} <= set(offered), offered
            server.user, server.password = USER, PASSWORD
            method = getattr(server, "auth_" + mechanism.lower())
            code, said = server.auth(mechanism, method)
            assert code == 235, said
            take(server, message(USER, f"{mechanism} {port}"), USER)

with smtplib.SMTP(HOST, PORT[587]) as server:
    server.starttls(context=TLS)
    try:
        server.login(USER, "wrong")
        raise AssertionError("a wrong password was taken")
    except smtplib.SMTPAuthenticationError as error:
        assert error.smtp_code == 535, error
print(sent)
