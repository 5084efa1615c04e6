//! A resolver and mail servers in small, all on loopback, and an outbound that delivers to them.

use ::outbound::Grants;
use ipc::{
    Limits, Line, Role, capnp,
    schema::{
        outbound_capnp::{delivery, outbound, recipient_result::Kind as Word},
        resolver_capnp::{self, Kind, resolver},
    },
};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::{Notify, mpsc},
};

/// What the resolver says of a name.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    Mx(Vec<(u16, &'static str)>),
    Ip(Ipv4Addr),
    NoSuchName,
    NoData,
    Fails,
}

#[derive(Default)]
pub(crate) struct Zone(pub(crate) RefCell<BTreeMap<(String, &'static str), Says>>);

struct Resolver(Rc<Zone>);

impl resolver::Server for Resolver {
    async fn lookup(
        self: Rc<Self>,
        params: resolver::LookupParams,
        mut results: resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let kind = match params.get_kind()? {
            Kind::Mx => "MX",
            Kind::A => "A",
            Kind::Aaaa
            | Kind::Txt
            | Kind::Tlsa
            | Kind::Cname
            | Kind::Ns
            | Kind::Srv
            | Kind::Ptr
            | Kind::Caa => "",
        };
        let key = (params.get_name()?.to_string()?, kind);
        let says = self.0.0.borrow().get(&key).cloned().unwrap_or(Says::NoData);
        let mut answer = results.get().init_answer();
        match says {
            Says::Mx(list) => {
                let mut records = answer.init_records(u32::try_from(list.len()).unwrap());
                for (at, (preference, exchange)) in (0..).zip(list) {
                    let mut mx = records.reborrow().get(at).init_mx();
                    mx.set_preference(preference);
                    mx.set_exchange(exchange);
                }
            }
            Says::Ip(ip) => answer.init_records(1).get(0).set_ip(&ip.octets()),
            Says::NoSuchName => answer.set_no_such_name(()),
            Says::NoData => answer.set_no_data(()),
            Says::Fails => answer.set_failed(resolver_capnp::Failure::Servfail),
        }
        Ok(())
    }
}

/// How a mail server behaves.
#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) greeting: Option<String>,
    pub(crate) extensions: Vec<&'static str>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Offers STARTTLS and answers the handshake with rubbish.
    pub(crate) broken_tls: bool,
    pub(crate) replies: BTreeMap<&'static str, &'static str>,
    /// Octets of content after which it hangs up.
    pub(crate) hangs_up_after: Option<usize>,
    /// What it says to the last dot, if not 250; it hangs up when that is empty.
    pub(crate) at_dot: Option<&'static str>,
}

/// What the servers have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Address, command line.
    pub(crate) commands: RefCell<Vec<(Ipv4Addr, String)>>,
    pub(crate) contents: RefCell<Vec<(Ipv4Addr, bool, Vec<u8>)>>,
    pub(crate) ended: Notify,
}

impl Seen {
    pub(crate) fn hosts(&self) -> Vec<Ipv4Addr> {
        let mut hosts: Vec<_> = self.commands.borrow().iter().map(|(ip, _)| *ip).collect();
        hosts.dedup();
        hosts
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

async fn session(
    server: Server,
    seen: Rc<Seen>,
    ip: Ipv4Addr,
    stream: tokio::net::TcpStream,
) -> std::io::Result<()> {
    let mut wire: BufReader<Box<dyn Wire>> = BufReader::new(Box::new(stream));
    let greeting = server.greeting.clone().unwrap_or_else(|| "220 here\r\n".into());
    wire.write_all(greeting.as_bytes()).await?;
    let mut secured = false;
    loop {
        let mut line = String::new();
        if wire.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        seen.commands.borrow_mut().push((ip, line.clone()));
        if let Some((_, reply)) = server.replies.iter().find(|(start, _)| line.starts_with(*start))
        {
            if reply.is_empty() {
                return Ok(());
            }
            wire.write_all(format!("{reply}\r\n").as_bytes()).await?;
            continue;
        }
        match line.split_whitespace().next().unwrap_or_default() {
            "EHLO" => {
                let mut lines = vec!["here"];
                lines.extend(&server.extensions);
                if (server.tls.is_some() || server.broken_tls) && !secured {
                    lines.push("STARTTLS");
                }
                let last = lines.pop().unwrap();
                let text: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
                wire.write_all(format!("{text}250 {last}\r\n").as_bytes()).await?;
            }
            "STARTTLS" => {
                wire.write_all(b"220 go\r\n").await?;
                let Some(config) = &server.tls else {
                    // After the client's first words: before, it would be an injection.
                    wire.fill_buf().await?;
                    wire.write_all(b"this is no TLS at all\r\n").await?;
                    return Ok(());
                };
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
                let inner = acceptor.accept(wire.into_inner()).await?;
                wire = BufReader::new(Box::new(inner));
                secured = true;
            }
            "DATA" => {
                wire.write_all(b"354 go\r\n").await?;
                let mut content = Vec::new();
                // A lone dot is what comes when every recipient was refused.
                while content != b".\r\n" && !content.ends_with(b"\r\n.\r\n") {
                    if wire.read_until(b'\n', &mut content).await? == 0 {
                        return Ok(());
                    }
                    if server.hangs_up_after.is_some_and(|most| content.len() > most) {
                        return Ok(());
                    }
                }
                seen.contents.borrow_mut().push((ip, secured, content));
                let reply = server.at_dot.unwrap_or("250 2.0.0 kept");
                if reply.is_empty() {
                    return Ok(());
                }
                wire.write_all(format!("{reply}\r\n").as_bytes()).await?;
            }
            "QUIT" => return wire.write_all(b"221 bye\r\n").await,
            _ => wire.write_all(b"250 2.1.0 fine\r\n").await?,
        }
        wire.flush().await?;
    }
}

/// A result as outbound reports it: what, code, enhanced code, text, host.
pub(crate) type Told = (String, Word, u16, String, String, String);

pub(crate) struct Lab {
    pub(crate) zone: Rc<Zone>,
    pub(crate) seen: Rc<Seen>,
    line: Line<outbound::Client>,
    listeners: BTreeMap<Ipv4Addr, TcpListener>,
}

/// `127.0.0.n`
pub(crate) fn at(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

/// What is to be sent; empty means nothing special.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) domain: &'static str,
    pub(crate) to: Vec<&'static str>,
    pub(crate) content: Vec<u8>,
    pub(crate) smtputf8: bool,
    pub(crate) require_tls: bool,
}

pub(crate) fn order(domain: &'static str, to: &[&'static str]) -> Order {
    Order {
        domain,
        to: to.to_vec(),
        content: b"Subject: x\r\n\r\nbody\r\n".to_vec(),
        smtputf8: false,
        require_tls: false,
    }
}

pub(crate) fn self_signed() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["other.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

impl Lab {
    /// Listeners of one port on 127.0.0.1 to 127.0.0.3.
    pub(crate) fn new() -> Self {
        let (port, listeners) = (0..50)
            .find_map(|_| {
                let first = TcpListener::bind((at(1), 0)).unwrap();
                let port = first.local_addr().unwrap().port();
                let others = [2, 3].map(|n| Some((at(n), TcpListener::bind((at(n), port)).ok()?)));
                let mut all: BTreeMap<_, _> = others.into_iter().collect::<Option<_>>()?;
                all.insert(at(1), first);
                Some((port, all))
            })
            .unwrap();
        let zone = Rc::new(Zone::default());
        let (resolver, side) = ipc::memory_edge(Role::Outbound, 0);
        let client: resolver::Client = ipc::new_client(Resolver(Rc::clone(&zone)));
        let (servers, inherited) = mpsc::channel(1);
        servers.try_send(side).map_err(drop).unwrap();
        let serve = move |_: Role, _| Some(client.client.clone());
        tokio::task::spawn_local(async move {
            let _servers = servers;
            ipc::serve_clients(inherited, Limits::default(), serve).await;
        });
        let (dialer, side) = ipc::memory_edge(Role::QueueRunner, 0);
        let (clients, inherited) = mpsc::channel(1);
        clients.try_send(side).map_err(drop).unwrap();
        let grants = Grants {
            connect: ::outbound::tcp(Vec::new(), port),
            tls: net::ClientTls::new(RootCertStore::empty()).unwrap(),
            resolver,
            clients: inherited,
        };
        tokio::task::spawn_local(async move {
            let _clients = clients;
            ::outbound::run(grants).await;
        });
        let line = Line::new(dialer, Limits::default());
        let lab = Self { zone, seen: Rc::default(), line, listeners };
        lab.says("b.test", "MX", Says::Mx(vec![(20, "mx2.b.test"), (10, "mx1.b.test")]));
        lab.says("mx1.b.test", "A", Says::Ip(at(1)));
        lab.says("mx2.b.test", "A", Says::Ip(at(2)));
        lab
    }

    pub(crate) fn says(&self, name: &str, kind: &'static str, what: Says) {
        self.zone.0.borrow_mut().insert((name.to_owned(), kind), what);
    }

    /// Puts a server on an address. Nobody listens where none was put.
    pub(crate) fn server(&mut self, n: u8, server: Server) {
        let listener = self.listeners.remove(&at(n)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let seen = Rc::clone(&self.seen);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, seen) = (server.clone(), Rc::clone(&seen));
                tokio::task::spawn_local(async move {
                    let _ = session(server, Rc::clone(&seen), at(n), stream).await;
                    seen.ended.notify_one();
                });
            }
        });
    }

    /// The rest of the addresses refuses connections.
    pub(crate) fn ready(&mut self) {
        self.listeners.clear();
    }

    pub(crate) async fn request(
        &self,
    ) -> capnp::capability::Request<outbound::deliver_params::Owned, outbound::deliver_results::Owned>
    {
        self.line.client().await.unwrap().deliver_request()
    }

    pub(crate) async fn begin(&self, order: &Order) -> delivery::Client {
        let mut request = self.request().await;
        let mut job = request.get().init_job();
        job.set_domain(order.domain);
        job.set_from("ann@a.test");
        job.set_ehlo("mx.a.test");
        job.set_size(order.content.len() as u64);
        job.set_smtputf8(order.smtputf8);
        job.set_require_tls(order.require_tls);
        let mut to = job.init_recipients(u32::try_from(order.to.len()).unwrap());
        for (at, address) in (0..).zip(&order.to) {
            to.set(at, address);
        }
        let answer = request.send().promise.await.unwrap();
        answer.get().unwrap().get_delivery().unwrap()
    }

    pub(crate) async fn deliver(&self, order: &Order) -> Vec<Told> {
        let whole = async {
            let delivery = self.begin(order).await;
            for chunk in order.content.chunks(60_000) {
                let mut request = delivery.write_request();
                request.get().set_chunk(chunk);
                request.send().await.unwrap();
            }
            let answer = delivery.finish_request().send().promise.await.unwrap();
            let report = answer.get().unwrap().get_report().unwrap();
            let read = |result: ipc::schema::outbound_capnp::recipient_result::Reader<'_>| {
                Ok::<_, capnp::Error>((
                    result.get_address()?.to_string()?,
                    result.get_kind()?,
                    result.get_code(),
                    result.get_enhanced()?.to_string()?,
                    result.get_text()?.to_string()?,
                    result.get_remote_host()?.to_string()?,
                ))
            };
            report.get_recipients().unwrap().iter().map(|one| read(one).unwrap()).collect()
        };
        tokio::time::timeout(Duration::from_secs(5), whole).await.unwrap()
    }
}
