//! The table: medians, spreads and ratios of all rounds.

use crate::{
    load::median,
    measures::{Figure, MEASURES, Measure, Must},
};
use std::fmt::Write as _;

/// As Markdown.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut out = String::from(
        "| Row | What | mox | P+D | mox : P+D | Must | |\n|---|---|---|---|---|---|---|\n",
    );
    for measure in MEASURES {
        let of = |server: &str| -> Vec<f64> {
            let mine = figures.iter().filter(|f| f.key == measure.key && f.server == server);
            mine.map(|f| f.value).collect()
        };
        let (ours, peers) = (of("mox"), of("P+D"));
        if ours.is_empty() && peers.is_empty() {
            continue;
        }
        let ratio = ratio(&ours, &peers);
        let shown = ratio.map(|r| format!("{r:.2}x")).unwrap_or_default();
        let row = format!(
            "| {} | {} | {} | {} | {shown} | {} | {} |",
            measure.row,
            measure.what,
            spread(&ours),
            spread(&peers),
            must(measure.must),
            verdict(measure, &ours, ratio)
        );
        writeln!(out, "{row}").expect("a String takes everything");
    }
    out
}

fn ratio(ours: &[f64], peers: &[f64]) -> Option<f64> {
    let (ours, peers) = (median(ours), median(peers));
    (ours > 0.0 && peers > 0.0).then(|| ours / peers)
}

fn spread(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.len() == 1 {
        return number(most);
    }
    format!("{} ({}–{})", number(median(values)), number(least), number(most))
}

fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn must(must: Must) -> String {
    match must {
        Must::AtMost(most) => format!("at most {most}"),
        Must::AtMostTimes(most) => format!("at most {most}x"),
        Must::AtLeastTimes(least) => format!("at least {least}x"),
        Must::Nothing => String::new(),
    }
}

fn verdict(measure: &Measure, ours: &[f64], ratio: Option<f64>) -> &'static str {
    let reached = match measure.must {
        Must::AtMost(most) if !ours.is_empty() => Some(median(ours) <= most),
        Must::AtMostTimes(most) => ratio.map(|r| r <= most),
        Must::AtLeastTimes(least) => ratio.map(|r| r >= least),
        Must::AtMost(_) | Must::Nothing => None,
    };
    match reached {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_spreads_and_verdicts() {
        let figure = |key: &str, server: &str, value| Figure {
            key: key.to_owned(),
            server: server.to_owned(),
            round: 0,
            value,
        };
        let table = table(&[
            figure("delivered", "mox", 150.0),
            figure("delivered", "mox", 170.0),
            figure("delivered", "mox", 160.0),
            figure("delivered", "P+D", 100.0),
            figure("disk", "mox", 7000.0),
        ]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), 2, "{table}");
        assert!(
            rows[0].contains("| 160 (150–170) | 100 | 1.60x | at least 1.5x | yes |"),
            "{table}"
        );
        assert!(rows[1].contains("| 7000 | - |  | at most 6000 | **no** |"), "{table}");
    }
}
