//! What is answered where: a pure function of the request's head.

use crate::{Side, answer::Answer, names::Names, page};
use config::slice::{HttpListener, Httpd, MailServer};
use hyper::{Method, StatusCode};
use std::net::IpAddr;
use types::Domain;

/// The longest path and query that is looked at.
const MAX_TARGET: usize = 2048;

/// Of a request, what an answer depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    /// Path, as it came.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// Host of the request, with port.
    pub(crate) host: Option<&'a str>,
}

/// One service: a listener and what it answers.
pub(crate) struct Site {
    side: Side,
    own: Vec<Domain>,
    listener: HttpListener,
    mail: Vec<MailServer>,
    names: Names,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This.
    Answer(Answer),
    /// The figures of all processes.
    Metrics,
}

impl Site {
    pub(crate) fn new(side: Side, slice: &Httpd, listener: &HttpListener, names: Names) -> Self {
        Self {
            side,
            own: vec![slice.hostname.clone(), listener.hostname.clone()],
            listener: listener.clone(),
            mail: slice.mail.clone(),
            names,
        }
    }

    pub(crate) fn listener(&self) -> &HttpListener {
        &self.listener
    }

    /// Decides.
    pub(crate) fn step(&self, asked: Asked<'_>, draining: bool) -> Step {
        let target = asked.path.len() + asked.query.map_or(0, str::len);
        if target > MAX_TARGET {
            return Step::Answer(Answer::status(StatusCode::URI_TOO_LONG));
        }
        if !matches!(*asked.method, Method::GET | Method::HEAD) {
            return Step::Answer(Answer::method_not_allowed());
        }
        // For whoever watches over us, by whatever name; says nothing of us.
        if asked.path == "/healthz" {
            return Step::Answer(if draining {
                Answer::status(StatusCode::SERVICE_UNAVAILABLE)
            } else {
                Answer::text("ok\n")
            });
        }
        if self.listener.metrics {
            return match asked.path {
                "/metrics" => Step::Metrics,
                "/" => Step::Answer(Answer::page(page::METRICS)),
                "/style.css" => Step::Answer(Answer::style(page::STYLE)),
                _ => Step::Answer(Answer::status(StatusCode::NOT_FOUND)),
            };
        }
        Step::Answer(self.page(asked))
    }

    fn page(&self, asked: Asked<'_>) -> Answer {
        // RFC 9112 §3.2: a request without Host is answered 400.
        let Some(host) = asked.host.and_then(Host::parse) else {
            return Answer::status(StatusCode::BAD_REQUEST);
        };
        // A name that somebody else has pointed at our address gets no page of ours: no cookie or
        // form of a later page can be used through it.
        let told = self.told(&host);
        if told.is_none() && !self.is_own(&host) {
            return Answer::status(StatusCode::NOT_FOUND);
        }
        if let Some(port) = self.listener.https_port {
            return redirect(&host, port, asked);
        }
        match (self.side, asked.path) {
            (Side::Web, "/") => {
                let asked = asked.query.and_then(domain_of).and_then(|d| self.names.of_domain(&d));
                Answer::page(self.settings(asked.as_ref().or(told)))
            }
            (Side::Web, "/style.css") => Answer::style(page::STYLE),
            (Side::Web | Side::Admin, _) => Answer::status(StatusCode::NOT_FOUND),
        }
    }

    /// What people enter into their mail program: `name` as every server's, where a domain has one
    /// of its own.
    fn settings(&self, name: Option<&Domain>) -> String {
        let named = |server: &MailServer| MailServer {
            host: name.unwrap_or(&server.host).clone(),
            ..server.clone()
        };
        let servers: Vec<MailServer> = self.mail.iter().map(named).collect();
        page::settings(name.unwrap_or(&self.listener.hostname).as_ascii(), &servers)
    }

    /// The host, where it is a name that mail programs are told.
    fn told<'a>(&self, host: &'a Host) -> Option<&'a Domain> {
        match host {
            Host::Name(name) if self.side == Side::Web && self.names.is_told(name) => Some(name),
            Host::Name(_) | Host::Ip(_) => None,
        }
    }

    fn is_own(&self, host: &Host) -> bool {
        match host {
            Host::Ip(_) => true,
            Host::Name(name) => name.as_ascii() == "localhost" || self.own.contains(name),
        }
    }
}

/// To the same path over TLS. The host is one of ours, never what a stranger made up.
fn redirect(host: &Host, port: u16, asked: Asked<'_>) -> Answer {
    let host = match host {
        Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Ip(ip @ IpAddr::V4(_)) => ip.to_string(),
        Host::Name(name) => name.as_ascii().to_owned(),
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
    Answer::moved(&format!("https://{host}{port}{}{query}", asked.path))
}

/// The domain of `?domain=`: whose settings are asked for.
fn domain_of(query: &str) -> Option<Domain> {
    query.split('&').find_map(|field| field.strip_prefix("domain="))?.parse().ok()
}

/// The host a request names.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Name(Domain),
    Ip(IpAddr),
}

impl Host {
    /// From a Host field or `:authority`: name or address, perhaps with a port.
    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, port) = rest.split_once(']')?;
            let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return is_port.then(|| ip.parse().ok().map(|ip| Self::Ip(IpAddr::V6(ip))))?;
        }
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        if !port.is_empty() && !is_port(port) {
            return None;
        }
        match host.parse() {
            Ok(ip) => Some(Self::Ip(IpAddr::V4(ip))),
            Err(_) => host.parse().ok().map(Self::Name),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The client's address behind a proxy that is believed: the last one it was given, which is the
/// one that proxy added itself. What stands before it anybody can have written.
#[must_use]
pub fn forwarded_for(field: &str) -> Option<IpAddr> {
    let last = field.rsplit(',').next()?.trim();
    let bare = last.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(last);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(side: Side, listener: &str) -> Site {
        let slice: Httpd = serde_json::from_str(&format!(
            r#"{{"hostname": "mail.example.org", "listeners": [{listener}],
                "mail": [{{"imap": true, "host": "imap.example.org", "port": 993,
                           "implicit_tls": true}}]}}"#
        ))
        .unwrap();
        Site::new(side, &slice, &slice.listeners[0], Names::default())
    }

    fn get<'a>(path: &'a str, host: Option<&'a str>) -> Asked<'a> {
        Asked { method: &Method::GET, path, query: None, host }
    }

    fn answer(site: &Site, asked: Asked<'_>) -> Answer {
        match site.step(asked, false) {
            Step::Answer(answer) => answer,
            Step::Metrics => panic!("metrics"),
        }
    }

    #[test]
    fn settings_page_for_our_own_names() {
        let web = site(
            Side::Web,
            r#"{"name": "public/https", "tls": true, "hostname": "mx.example.org"}"#,
        );
        for host in
            ["mail.example.org", "MX.example.org:443", "localhost:8443", "192.0.2.1", "[::1]:443"]
        {
            let page = answer(&web, get("/", Some(host)));
            assert_eq!(page.status, StatusCode::OK, "{host}");
            assert!(page.body_text().contains("imap.example.org"));
        }
        assert_eq!(answer(&web, get("/", Some("evil.example"))).status, StatusCode::NOT_FOUND);
        for host in
            [None, Some(""), Some("a b"), Some("a:b"), Some("a:99999"), Some("[::1"), Some("a:+1")]
        {
            assert_eq!(answer(&web, get("/", host)).status, StatusCode::BAD_REQUEST, "{host:?}");
        }
        for path in ["/x", "/metrics", "/../etc/passwd", "//"] {
            let other = answer(&web, get(path, Some("mail.example.org")));
            assert_eq!(other.status, StatusCode::NOT_FOUND, "{path}");
        }
        let post = Asked { method: &Method::POST, ..get("/", Some("mail.example.org")) };
        assert_eq!(answer(&web, post).status, StatusCode::METHOD_NOT_ALLOWED);
        let long = "/".repeat(MAX_TARGET + 1);
        assert_eq!(answer(&web, get(&long, None)).status, StatusCode::URI_TOO_LONG);
    }

    #[test]
    fn a_domain_with_a_name_of_its_own_is_told_that() {
        let web = site(Side::Web, r#"{"name": "public/https", "hostname": "mail.example.org"}"#);
        let host = Some("mail.example.org");
        let asked = |query| Asked { query: Some(query), ..get("/", host) };
        let usual = answer(&web, get("/", host));
        assert_eq!(answer(&web, get("/", Some("imap.a.example"))).status, StatusCode::NOT_FOUND);
        let snapshot = r#"{"domains": [
            {"name": "a.example", "enabled": true, "client_settings": "imap.a.example"}]}"#;
        web.names.replace(&serde_json::from_str(snapshot).unwrap());
        let by_name = answer(&web, get("/", Some("imap.a.example")));
        assert!(by_name.body_text().contains("<td><code>imap.a.example</code></td><td>993</td>"));
        assert!(!by_name.body_text().contains("imap.example.org"));
        assert_eq!(answer(&web, asked("x=y&domain=a.example")), by_name);
        for other in ["domain=b.example", "domain=<b>", "domain=", "a.example", ""] {
            assert_eq!(answer(&web, asked(other)), usual, "{other}");
        }
        assert_eq!(answer(&web, get("/", host)), usual);
        assert_eq!(answer(&web, get("/", Some("a.example"))).status, StatusCode::NOT_FOUND);
        // An administrator's pages have no use for it.
        let admin = Site { side: Side::Admin, ..web };
        assert_eq!(answer(&admin, get("/", Some("imap.a.example"))).status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn health_by_any_name_until_draining() {
        let web = site(Side::Web, r#"{"name": "public/http", "https_port": 443}"#);
        assert_eq!(answer(&web, get("/healthz", None)).body_text(), "ok\n");
        let Step::Answer(draining) = web.step(get("/healthz", None), true) else { panic!() };
        assert_eq!(draining.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn clear_text_is_sent_to_tls_at_our_own_names_only() {
        let plain = site(Side::Web, r#"{"name": "public/http", "https_port": 8443}"#);
        let asked = Asked { query: Some("a=b"), ..get("/x", Some("mail.example.org:8080")) };
        let moved = answer(&plain, asked);
        assert_eq!(moved.location().unwrap(), "https://mail.example.org:8443/x?a=b");
        assert_eq!(
            answer(&plain, get("/", Some("[::1]"))).location().unwrap(),
            "https://[::1]:8443/"
        );
        let evil = answer(&plain, get("/", Some("evil.example")));
        assert_eq!((evil.status, evil.location()), (StatusCode::NOT_FOUND, None));
        let usual = site(Side::Web, r#"{"name": "public/http", "https_port": 443}"#);
        assert_eq!(
            answer(&usual, get("/", Some("localhost"))).location().unwrap(),
            "https://localhost/"
        );
    }

    #[test]
    fn metrics_behind_their_own_listener() {
        let metrics = site(Side::Admin, r#"{"name": "internal/metrics", "metrics": true}"#);
        assert_eq!(metrics.step(get("/metrics", None), false), Step::Metrics);
        assert!(answer(&metrics, get("/", None)).body_text().contains("/metrics"));
        assert_eq!(answer(&metrics, get("/x", None)).status, StatusCode::NOT_FOUND);
        let admin = site(Side::Admin, r#"{"name": "internal/admin"}"#);
        let other = answer(&admin, get("/metrics", Some("mail.example.org")));
        assert_eq!(other.status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn only_the_proxys_own_word_is_believed() {
        assert_eq!(forwarded_for("10.0.0.1, 192.0.2.1"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(forwarded_for("[2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(forwarded_for("192.0.2.1, unknown"), None);
        assert_eq!(forwarded_for(""), None);
    }
}
