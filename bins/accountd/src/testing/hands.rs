//! keyholder, parser and resolver as small servers that keep to their schemas and no more.

use ipc::{
    capnp,
    schema::{
        keyholder_capnp::{accountd_keys, dkim_signer, key_admin, pepper},
        parser_capnp::{Blob, facts, job, parser},
        resolver_capnp::resolver,
    },
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// keyholder: a pepper that seals by putting the account in front.
pub(crate) struct FakeKeys;

impl accountd_keys::Server for FakeKeys {
    async fn pepper(
        self: Rc<Self>,
        _: accountd_keys::PepperParams,
        mut results: accountd_keys::PepperResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_pepper(ipc::new_client(FakeKeys));
        Ok(())
    }

    async fn dkim(
        self: Rc<Self>,
        _: accountd_keys::DkimParams,
        mut results: accountd_keys::DkimResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_signer(ipc::new_client(FakeKeys));
        Ok(())
    }

    async fn key_admin(
        self: Rc<Self>,
        _: accountd_keys::KeyAdminParams,
        mut results: accountd_keys::KeyAdminResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_admin(ipc::new_client(FakeKeys));
        Ok(())
    }
}

impl dkim_signer::Server for FakeKeys {
    async fn describe(
        self: Rc<Self>,
        _: dkim_signer::DescribeParams,
        mut results: dkim_signer::DescribeResults,
    ) -> Result<(), capnp::Error> {
        let mut key = results.get().init_keys(1).get(0);
        key.set_selector("2026a");
        key.set_algorithm("ed25519-sha256");
        Ok(())
    }

    async fn sign(
        self: Rc<Self>,
        params: dkim_signer::SignParams,
        mut results: dkim_signer::SignResults,
    ) -> Result<(), capnp::Error> {
        let block = params.get()?.get_headers()?;
        let domain = "example.org".parse().unwrap();
        mailauth::dkim::check_signable(block, &domain).unwrap();
        results.get().init_outcome().set_signature(&[9; 64]);
        Ok(())
    }
}

impl key_admin::Server for FakeKeys {
    async fn hosted(
        self: Rc<Self>,
        params: key_admin::HostedParams,
        _: key_admin::HostedResults,
    ) -> Result<(), capnp::Error> {
        assert_eq!(params.get()?.get_domains()?.len(), 1);
        Ok(())
    }
}

impl pepper::Server for FakeKeys {
    async fn seal(
        self: Rc<Self>,
        params: pepper::SealParams,
        mut results: pepper::SealResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        results.get().set_sealed(&[params.get_account()?, params.get_plain()?].concat());
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: pepper::OpenParams,
        mut results: pepper::OpenResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let mut to = results.get().init_outcome();
        match params.get_sealed()?.strip_prefix(params.get_account()?) {
            Some(plain) => to.set_plain(plain),
            None => to.set_damaged(()),
        }
        Ok(())
    }

    async fn mac(
        self: Rc<Self>,
        _: pepper::MacParams,
        mut results: pepper::MacResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_mac(&[7; 32]);
        Ok(())
    }
}

/// parser: reads headers by the line; a message with the word POISON ends the job.
pub(crate) struct FakeParser(pub(crate) Rc<Cell<u32>>);

struct FakeJob {
    octets: RefCell<Vec<u8>>,
    failed: Rc<Cell<u32>>,
}

struct FakeFacts(Vec<u8>);

impl FakeFacts {
    fn header(&self) -> usize {
        let end = self.0.windows(4).position(|w| w == b"\r\n\r\n");
        end.map_or(self.0.len(), |at| at + 4)
    }

    fn fields(&self, name: &str) -> Vec<String> {
        let header = String::from_utf8_lossy(&self.0[..self.header()]).into_owned();
        let field = |line: &str| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        header.split("\r\n").filter_map(field).collect()
    }
}

impl parser::Server for FakeParser {
    async fn job(
        self: Rc<Self>,
        _: parser::JobParams,
        mut results: parser::JobResults,
    ) -> Result<(), capnp::Error> {
        let failed = Rc::clone(&self.0);
        results.get().set_job(ipc::new_client(FakeJob { octets: RefCell::default(), failed }));
        Ok(())
    }
}

impl job::Server for FakeJob {
    async fn write(self: Rc<Self>, params: job::WriteParams) -> Result<(), capnp::Error> {
        self.octets.borrow_mut().extend_from_slice(params.get()?.get_chunk()?);
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: job::FinishParams,
        mut results: job::FinishResults,
    ) -> Result<(), capnp::Error> {
        let octets = self.octets.take();
        if octets.windows(6).any(|w| w == b"POISON") {
            self.failed.set(self.failed.get() + 1);
            return Err(capnp::Error::failed("a poisoned job".into()));
        }
        results.get().set_facts(ipc::new_client(FakeFacts(octets)));
        Ok(())
    }
}

impl facts::Server for FakeFacts {
    async fn summary(
        self: Rc<Self>,
        _: facts::SummaryParams,
        mut results: facts::SummaryResults,
    ) -> Result<(), capnp::Error> {
        let mut to = results.get().init_summary();
        to.set_size(self.0.len() as u64);
        to.set_header_length(self.header() as u64);
        let one = |name| self.fields(name).into_iter().next().unwrap_or_default();
        to.set_message_id(one("Message-ID").trim_matches(['<', '>']));
        to.set_subject_base(one("Subject").to_lowercase().as_str());
        to.set_has_date(!self.fields("Date").is_empty());
        to.set_preview("a preview");
        to.set_text_parts(1);
        to.set_received_count(u32::try_from(self.fields("Received").len()).unwrap());
        let from = self.fields("From");
        to.set_from_field_count(u32::try_from(from.len()).unwrap());
        let from: Vec<&str> = from.iter().map(String::as_str).collect();
        to.set_from_addresses(from.as_slice())?;
        Ok(())
    }

    async fn blob(
        self: Rc<Self>,
        params: facts::BlobParams,
        mut results: facts::BlobResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let blob = match params.get_kind()? {
            Blob::Headers => self.0[..self.header()].to_vec(),
            Blob::Envelope => b"envelope".to_vec(),
            Blob::Structure => b"structure".to_vec(),
        };
        let offset = usize::try_from(params.get_offset()).unwrap();
        results.get().set_data(&blob[offset..]);
        results.get().set_total(blob.len() as u64);
        Ok(())
    }

    async fn text(
        self: Rc<Self>,
        params: facts::TextParams,
        mut results: facts::TextResults,
    ) -> Result<(), capnp::Error> {
        let offset = usize::try_from(params.get()?.get_offset()).unwrap();
        let text = &self.0[self.header()..];
        results.get().set_data(&text[offset..]);
        results.get().set_total(text.len() as u64);
        Ok(())
    }
}

/// resolver: every name has an address but those of `.invalid`.
pub(crate) struct FakeResolver;

impl resolver::Server for FakeResolver {
    async fn lookup(
        self: Rc<Self>,
        params: resolver::LookupParams,
        mut results: resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let mut answer = results.get().init_answer();
        match params.get()?.get_name()?.to_str()?.ends_with(".invalid") {
            true => answer.set_no_such_name(()),
            false => answer.init_records(1).get(0).set_ip(&[192, 0, 2, 1]),
        }
        Ok(())
    }
}
