//! Keeps the certificates of this process as keyholder has them.

use ipc::{
    Line, Unavailable, capnp,
    schema::{keyholder_capnp::tls_door, types_capnp::watched},
    within,
};
use net::{Certificate, Certificates};
use std::{rc::Rc, time::Duration};
use tokio::sync::Notify;

/// A call of keyholder's.
const CALL: Duration = Duration::from_secs(5);
/// Between two attempts while keyholder is away, doubling; a dial waits for its return most of the
/// time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Names of one certificate, and schemes of one key, that are read.
const MAX_LIST: u32 = 1024;

/// Told when anything about the certificates changed, and when the connection ended.
struct Bell(Rc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl watched::Server for Bell {
    async fn changed(
        self: Rc<Self>,
        _: watched::ChangedParams,
        _: watched::ChangedResults,
    ) -> Result<(), capnp::Error> {
        self.0.notify_one();
        Ok(())
    }

    async fn revoked(
        self: Rc<Self>,
        _: watched::RevokedParams,
        _: watched::RevokedResults,
    ) -> Result<(), capnp::Error> {
        self.0.notify_one();
        Ok(())
    }
}

/// Never ends.
pub(crate) async fn keep(line: Line<tls_door::Client>, certificates: Certificates) {
    let mut retry = FIRST_RETRY;
    loop {
        let bell = Rc::new(Notify::new());
        match fetch(&line, &bell).await {
            Ok((list, handle)) => {
                retry = FIRST_RETRY;
                for (name, problem) in certificates.replace(list) {
                    tracing::error!(name, %problem, "a certificate cannot be used");
                }
                bell.notified().await;
                drop(handle);
            }
            // What there was is kept: keyholder comes back with the same keys.
            Err(why) => {
                tracing::debug!(%why, "certificates not fetched");
                tokio::time::sleep(retry).await;
                retry = retry.saturating_mul(2).min(LAST_RETRY);
            }
        }
    }
}

type Watch = ipc::schema::types_capnp::handle::Client;

async fn fetch(
    line: &Line<tls_door::Client>,
    bell: &Rc<Notify>,
) -> Result<(Vec<Certificate>, Watch), Unavailable> {
    let door = line.client().await?;
    let _permit = line.permit().await;
    within(CALL, async {
        // The watch first: a change between the two rings.
        let mut request = door.watch_request();
        request.get().set_sink(ipc::new_client(Bell(Rc::clone(bell))));
        let handle = request.send().promise.await?.get()?.get_handle()?;
        let answer = door.certificates_request().send().promise.await?;
        let list = answer.get()?.get_list()?.iter().map(read).collect::<Result<_, _>>()?;
        Ok((list, handle))
    })
    .await
}

fn read(from: tls_door::certificate::Reader<'_>) -> Result<Certificate, capnp::Error> {
    let names = from.get_names()?;
    let schemes = from.get_schemes()?;
    if names.len() > MAX_LIST || schemes.len() > MAX_LIST {
        return Err(capnp::Error::failed("a certificate with too many names".to_owned()));
    }
    let name = |name: Result<capnp::text::Reader<'_>, capnp::Error>| {
        Ok::<_, capnp::Error>(name?.to_str()?.to_owned())
    };
    Ok(Certificate {
        names: names.iter().map(name).collect::<Result<_, _>>()?,
        chain: from
            .get_chain()?
            .iter()
            .map(|der| der.map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?,
        key_id: from.get_key_id(),
        spki: from.get_spki()?.to_vec(),
        schemes: schemes.iter().collect(),
        is_default: from.get_is_default(),
    })
}
