//! Everybody's passwords, and those that are changed in the middle: sessions that rest on an old
//! one end, it opens nothing any more, and the new one does.

use super::{reader, template, world::World};
use ipc::{
    Limits, capnp,
    schema::control_capnp::{account_admin, problem},
};
use std::{collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

/// The pause before a change that came to nothing is tried again, at most.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a change may take to be answered.
const ANSWER: Duration = Duration::from_secs(60);
/// A session that rests on an old password may live so long when messages are held up,
const LIFE_IN_TROUBLE: Duration = Duration::from_secs(300);
/// and so long when all is calm.
const LIFE: Duration = Duration::from_secs(2);

/// One user's password.
struct Secret {
    now: String,
    /// Being changed to this: it may be either.
    coming: Option<String>,
    /// So often it was changed, and when that was answered last.
    changes: u32,
    changed: Instant,
}

/// Those of all.
pub(super) struct Secrets(BTreeMap<&'static str, Secret>);

impl Default for Secrets {
    fn default() -> Self {
        let secret = || Secret {
            now: template::PASSWORD.to_owned(),
            coming: None,
            changes: 0,
            changed: Instant::now(),
        };
        Self(template::ACCOUNTS.into_iter().map(|name| (name, secret())).collect())
    }
}

/// A password as somebody uses it.
#[derive(Debug, Clone)]
pub(super) struct Used {
    pub(super) password: String,
    /// The changes before; more of them mean that this one is old.
    changes: u32,
    was_sure: bool,
}

impl Secrets {
    fn of(&self, name: &str) -> &Secret {
        self.0.get(name).expect("the accounts are fixed")
    }

    fn of_mut(&mut self, name: &str) -> &mut Secret {
        self.0.get_mut(name).expect("the accounts are fixed")
    }

    /// Whether a password that somebody used may have been refused.
    fn may_fail(&self, name: &str, used: &Used) -> bool {
        let secret = self.of(name);
        !used.was_sure || secret.coming.is_some() || secret.changes > used.changes
    }
}

impl World {
    /// The password to log in with now.
    pub(super) fn password(&self, name: &str) -> Used {
        let secrets = self.secrets.borrow();
        let secret = secrets.of(name);
        match &secret.coming {
            Some(coming) if self.below(2) == 0 => {
                Used { password: coming.clone(), changes: secret.changes + 1, was_sure: false }
            }
            coming => Used {
                password: secret.now.clone(),
                changes: secret.changes,
                was_sure: coming.is_none(),
            },
        }
    }

    /// Whether a password that was used may have been refused for good.
    pub(super) fn password_may_fail(&self, name: &str, used: &Used) -> bool {
        self.secrets.borrow().may_fail(name, used)
    }

    /// Somebody whose session rests on a password was served: it must not be an old one.
    pub(super) fn served(&self, name: &str, used: &Used) {
        let secrets = self.secrets.borrow();
        let secret = secrets.of(name);
        let is_old = secret.changes > used.changes && secret.changed.elapsed() > LIFE_IN_TROUBLE;
        if is_old {
            self.wrong(format!("{name} is served on a password that was changed"));
        }
    }

    /// Where accountd is administered.
    pub(super) fn control(&self) -> PathBuf {
        self.folder.join("control")
    }
}

/// Changes a user's password, however often it has to be said.
async fn change(world: &World, name: &'static str) {
    let new = {
        let mut secrets = world.secrets.borrow_mut();
        let secret = secrets.of_mut(name);
        let new = format!("{}-{}", template::PASSWORD, secret.changes + 1);
        secret.coming = Some(new.clone());
        new
    };
    world.note(&format!("{name} gets another password"));
    while let Err(error) = say(world, name, &new).await {
        world.note(&format!("{name} keeps the password: {error}"));
        sleep(world.up_to(AGAIN)).await;
    }
    world.note(&format!("{name} has another password"));
    let mut secrets = world.secrets.borrow_mut();
    let secret = secrets.of_mut(name);
    *secret =
        Secret { now: new, coming: None, changes: secret.changes + 1, changed: Instant::now() };
}

async fn say(world: &World, name: &str, password: &str) -> anyhow::Result<()> {
    let stream = ipc::Stream::from_unix(UnixStream::connect(world.control()).await?)?;
    let (admin, serving) = ipc::connect::<account_admin::Client>(stream, Limits::default());
    let mut request = admin.account_password_request();
    let mut params = request.get();
    params.set_name(name.split('@').next().unwrap_or_default());
    params.set_password(password);
    let asked = async {
        let answer = request.send().promise.await?;
        let problem = answer.get()?.get_problem()?;
        if problem.get_kind()? == problem::Kind::None {
            Ok(())
        } else {
            Err(capnp::Error::failed(format!("{:?}", problem.get_text()?)))
        }
    };
    tokio::select! {
        biased;
        answered = timeout(ANSWER, asked) => Ok(answered??),
        _ = serving => anyhow::bail!("accountd hung up"),
    }
}

/// Changes passwords while things go wrong; what follows from it the users see.
pub(super) async fn change_some(world: Rc<World>, times: u64, pause: Duration) {
    for _ in 0..times {
        sleep(world.up_to(pause)).await;
        let at = usize::try_from(world.below(2)).unwrap_or(0);
        change(&world, template::ACCOUNTS[at]).await;
    }
}

/// Changes a password when all is calm: live sessions end within [`LIFE`], the old password opens
/// nothing, the new one does.
pub(super) async fn change_in_calm(world: &Rc<World>, name: &'static str) {
    let old = world.password(name);
    let mut sessions = Vec::new();
    for is_idle in [true, false] {
        match reader::watch(world, name, is_idle).await {
            Some(session) => sessions.push(session),
            None => world.wrong(format!("{name} cannot read when all is calm")),
        }
    }
    change(world, name).await;
    let ending = async {
        for session in sessions {
            session.ended(world, name).await;
        }
    };
    if timeout(LIFE, ending).await.is_err() {
        world.wrong(format!("a session of {name} outlives its password"));
    }
    for (used, should_open) in [(old, false), (world.password(name), true)] {
        let opens = reader::opens(world, name, &used).await;
        if opens != Some(should_open) {
            let Used { password, .. } = used;
            world.wrong(format!("that {password} opens {name} is {opens:?}"));
        }
    }
}
