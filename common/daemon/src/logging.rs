//! Logs go to descriptor 2, one event a line, each with the name of its process.
//!
//! The supervisor decides what descriptor 2 is (journal, file or terminal) and fixes the identifier
//! there; the name in the line is for terminals and files that several processes share.

use std::{fmt, io};

use crate::figures::{Count, Figures};
use config::{Format, Level, Log};
use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

/// Changes how much is logged.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl LogLevel {
    /// From now on.
    pub fn set(&self, level: Level) {
        if self.0.reload(filter(level)).is_err() {
            tracing::error!("the level of the log could not be changed");
        }
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Counts what is logged as an error or a warning: alerts are made from figures, not from text.
struct Counted(Option<Figures>);

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if let Some(figures) = &self.0 {
            if level == tracing::Level::ERROR {
                figures.count(Count::LogErrors);
            } else if level == tracing::Level::WARN {
                figures.count(Count::LogWarnings);
            }
        }
    }
}

/// Begins to log, as `process`.
pub fn init(process: &str, log: Log, figures: Option<Figures>) -> LogLevel {
    let (level, handle) = reload::Layer::new(filter(log.level));
    let registry = tracing_subscriber::registry().with(level).with(Counted(figures));
    let process = process.to_owned();
    // try_init: a test process may have begun before, and one log is enough.
    let begun = match log.format {
        Format::Text => {
            let line = TextLine { process, inner: format::format().with_ansi(false) };
            let layer = tracing_subscriber::fmt::layer().with_ansi(false);
            registry.with(layer.event_format(line).with_writer(io::stderr)).try_init()
        }
        Format::Json => {
            let line = JsonLine { process, inner: format::format().json().flatten_event(true) };
            let layer = tracing_subscriber::fmt::layer().json();
            registry.with(layer.event_format(line).with_writer(io::stderr)).try_init()
        }
    };
    if begun.is_err() {
        tracing::warn!("logging had begun before");
    }
    LogLevel(handle)
}

struct TextLine {
    process: String,
    inner: format::Format,
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{} ", self.process)?;
        self.inner.format_event(context, writer, event)
    }
}

struct JsonLine {
    process: String,
    inner: format::Format<format::Json>,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        // Names of processes are a-z, 0-9, '-' and '.': nothing to escape.
        let rest = line.strip_prefix('{').unwrap_or(&line);
        write!(writer, "{{\"process\":\"{}\",{rest}", self.process)
    }
}
