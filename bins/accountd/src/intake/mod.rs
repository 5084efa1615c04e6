//! Mail on its way into accounts: spooled as it arrives, parsed once, judged, stored.

pub(crate) mod deliver;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod own_header;
pub(crate) mod parse;
pub(crate) mod recipients;
pub(crate) mod refusal;
pub(crate) mod special;
pub(crate) mod spool;
pub(crate) mod submit;
pub(crate) mod turns;
