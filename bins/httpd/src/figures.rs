//! Other processes' figures: the latest of each, read when asked for.

use ipc::Role;
use sandbox::figures::Figures;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tokio::sync::mpsc;

/// Processes whose figures are kept; there are about a dozen roles with a few instances each.
const MAX_PROCESSES: usize = 1024;

/// Figures by process. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct AllFigures(Rc<RefCell<BTreeMap<(Role, u16), Figures>>>);

impl AllFigures {
    /// Takes what comes, for ever.
    pub(crate) async fn collect(self, mut coming: mpsc::Receiver<(Role, u16, Figures)>) {
        while let Some((role, instance, figures)) = coming.recv().await {
            let mut all = self.0.borrow_mut();
            if all.len() < MAX_PROCESSES || all.contains_key(&(role, instance)) {
                all.insert((role, instance), figures);
            } else {
                tracing::warn!(%role, instance, "figures of more processes than there can be");
            }
        }
    }

    /// All of them in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let all = self.0.borrow();
        let readers: Vec<_> = all
            .iter()
            .map(|((role, instance), figures)| {
                let labels = format!("process=\"{role}\",instance=\"{instance}\"");
                (labels, move |at: usize| figures.read(at).unwrap_or_default())
            })
            .collect();
        let processes: Vec<(String, &dyn Fn(usize) -> u64)> = readers
            .iter()
            .map(|(labels, read)| (labels.clone(), read as &dyn Fn(usize) -> u64))
            .collect();
        daemon::figures::prometheus(&processes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::Count;

    #[tokio::test]
    async fn figures_of_all_processes_are_shown() {
        let (sender, coming) = mpsc::channel(4);
        let all = AllFigures::default();
        for (role, instance, messages) in [(Role::SmtpdMx, 0, 5), (Role::Parser, 1, 7)] {
            let memory = sandbox::figures::create("test").unwrap();
            let own = daemon::Figures::over(sandbox::figures::map_to_write(&memory).unwrap());
            own.add(Count::MessagesAccepted, messages);
            let descriptor = sandbox::figures::read_only(&memory).unwrap();
            let figures = Figures::map_to_read(descriptor).unwrap();
            sender.send((role, instance, figures)).await.unwrap();
        }
        drop(sender);
        all.clone().collect(coming).await;
        let text = all.text();
        for line in [
            "mox_smtpserver_delivery_total{process=\"smtpd-mx\",instance=\"0\",result=\"accepted\"} 5",
            "mox_smtpserver_delivery_total{process=\"parser\",instance=\"1\",result=\"accepted\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
