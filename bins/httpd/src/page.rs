//! The page at `/`: what people enter into their mail program. No script, one style sheet.

use config::slice::MailServer;
use std::fmt::Write as _;

/// The style sheet, at `/style.css`.
pub(crate) const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #8884; }
code { font-size: 1.05em; }
";

/// The settings page. Host names are parsed domains in ASCII, so nothing here needs escaping; a
/// test holds that.
pub(crate) fn settings(hostname: &str, servers: &[MailServer]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <title>Mail on {hostname}</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n\
         <h1>Mail on {hostname}</h1>\n"
    );
    if servers.is_empty() {
        page.push_str("<p>No service for mail programs is set up on this server.</p>\n");
    } else {
        page.push_str(
            "<p>Settings for mail programs. The user name is the whole mail address.</p>\n\
             <table>\n<tr><th>For</th><th>Server</th><th>Port</th><th>Security</th></tr>\n",
        );
        for server in servers {
            let what = if server.imap { "Reading (IMAP)" } else { "Sending (SMTP)" };
            let security = if server.implicit_tls { "TLS" } else { "STARTTLS" };
            // Writing into a String does not fail.
            let _ = writeln!(
                page,
                "<tr><td>{what}</td><td><code>{}</code></td><td>{}</td><td>{security}</td></tr>",
                server.host, server.port
            );
        }
        page.push_str("</table>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// The page of a metrics listener.
pub(crate) const METRICS: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n\
    <meta charset=\"utf-8\">\n<title>mox: figures</title>\n\
    <link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n\
    <p><a href=\"/metrics\">/metrics</a></p>\n</body>\n</html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_each_server() {
        let server = |imap, port, implicit_tls| MailServer {
            imap,
            host: "mail.example.org".parse().unwrap(),
            port,
            implicit_tls,
        };
        let page =
            settings("mail.example.org", &[server(true, 993, true), server(false, 587, false)]);
        assert!(page.contains(
            "<td>Reading (IMAP)</td><td><code>mail.example.org</code></td><td>993</td><td>TLS</td>"
        ));
        assert!(page.contains("<td>587</td><td>STARTTLS</td>"));
        assert!(settings("h", &[]).contains("No service"));
    }

    #[test]
    fn a_domain_cannot_break_out_of_the_page() {
        for text in ["<script>", "a\"b", "a&b", "a'b"] {
            assert!(text.parse::<types::Domain>().is_err(), "{text}");
        }
    }
}
