//! Answers: a status, a body, and the header fields that every answer of ours has.

use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    body::Bytes,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
        HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
        X_FRAME_OPTIONS,
    },
};

/// What pages of ours may do: load our own style, and nothing else. No page has a script.
const POLICY: &str = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// An answer before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    kind: &'static str,
    body: Bytes,
    extra: Option<(HeaderName, HeaderValue)>,
    keep: bool,
}

impl Answer {
    fn new(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, kind, body: body.into(), extra: None, keep: false }
    }

    pub(crate) fn text(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn page(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", body)
    }

    pub(crate) fn style(body: &'static str) -> Self {
        let mut answer = Self::new(StatusCode::OK, "text/css; charset=utf-8", body);
        answer.keep = true;
        answer
    }

    /// The text format of Prometheus.
    pub(crate) fn metrics(body: String) -> Self {
        Self::new(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// A status with its own name as text.
    pub(crate) fn status(status: StatusCode) -> Self {
        let body = format!("{status}\n");
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// RFC 9110 §15.5.6: says what is allowed.
    pub(crate) fn method_not_allowed() -> Self {
        let mut answer = Self::status(StatusCode::METHOD_NOT_ALLOWED);
        answer.extra = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        answer
    }

    /// Above a limit of requests.
    pub(crate) fn too_many() -> Self {
        let mut answer = Self::status(StatusCode::TOO_MANY_REQUESTS);
        answer.extra = Some((RETRY_AFTER, HeaderValue::from_static("60")));
        answer
    }

    /// To the same place elsewhere, for good. A target that cannot stand in a header field, which
    /// is never one of ours, is nowhere.
    pub(crate) fn moved(to: &str) -> Self {
        let Ok(target) = HeaderValue::from_str(to) else {
            return Self::status(StatusCode::BAD_REQUEST);
        };
        let mut answer = Self::status(StatusCode::PERMANENT_REDIRECT);
        answer.extra = Some((LOCATION, target));
        answer
    }

    /// As it goes out, to a request of this method.
    pub(crate) fn into_response(self, method: &Method) -> Response<Full<Bytes>> {
        let length = self.body.len();
        // RFC 9110 §9.3.2: HEAD has the fields of GET, and no content.
        let body = if method == Method::HEAD { Bytes::new() } else { self.body };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let kept = if self.keep { "public, max-age=86400" } else { "no-store" };
        fields.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
        fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Some((name, value)) = self.extra {
            fields.insert(name, value);
        }
        response
    }
}

#[cfg(test)]
impl Answer {
    pub(crate) fn body_text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn location(&self) -> Option<String> {
        let (name, value) = self.extra.as_ref()?;
        (name == LOCATION).then(|| value.to_str().unwrap().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Body as _;

    #[test]
    fn every_answer_is_fenced_in() {
        for answer in [
            Answer::text("ok"),
            Answer::page("<p>"),
            Answer::style("p{}"),
            Answer::status(StatusCode::NOT_FOUND),
            Answer::method_not_allowed(),
            Answer::too_many(),
            Answer::moved("https://example.org/"),
        ] {
            let response = answer.into_response(&Method::GET);
            let fields = response.headers();
            assert_eq!(fields[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(fields[X_FRAME_OPTIONS], "DENY");
            assert!(fields[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("'none'"));
            assert!(!fields[CONTENT_TYPE].is_empty());
        }
    }

    #[test]
    fn head_is_get_without_content() {
        let get = Answer::text("hello").into_response(&Method::GET);
        let head = Answer::text("hello").into_response(&Method::HEAD);
        assert_eq!(get.headers(), head.headers());
        assert_eq!(get.body().size_hint().exact(), Some(5));
        assert_eq!(head.body().size_hint().exact(), Some(0));
    }

    #[test]
    fn a_target_with_line_ends_goes_nowhere() {
        let answer = Answer::moved("https://example.org/\r\nSet-Cookie: x=y");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.location(), None);
    }
}
