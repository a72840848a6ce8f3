//! Every setting, once.

use std::collections::BTreeSet;

use node::{
    config::Network,
    names::NameAuthority,
    p2p::Multiaddr,
    web::{BlockHost, FrameSource, Label, ScriptHash},
};

use super::{
    Settings,
    codec::{
        Address, Blocks, Codec, Count, Each, Flag, Floor, Folder, Format, Given, Ids, Maybe,
        Metadata, Names, Parsed, Scope, Size, SizeInMemory, Span, Text, Texts, Token,
    },
};

/// A setting.
pub struct Key {
    /// Name in the file, with a dot after the name of a table.
    pub name: &'static str,
    /// The field of [`node::Config`] it sets; `None` for settings of this program.
    pub field: Option<&'static str>,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// What a value looks like.
    pub form: &'static str,
    /// Its value is a secret.
    pub is_secret: bool,
    pub(super) set: fn(&mut Settings, &Given) -> Result<(), String>,
    pub(super) show: fn(&Settings) -> Option<String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Returns the environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "KASTRO_{}",
            self.name.to_ascii_uppercase().replace('.', "_")
        )
    }

    /// Returns the table and the name in it.
    #[must_use]
    pub fn parts(&self) -> (Option<&'static str>, &'static str) {
        match self.name.split_once('.') {
            Some((table, name)) => (Some(table), name),
            None => (None, self.name),
        }
    }
}

/// Returns the setting of this name; dashes count as underscores.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let name = name.replace('-', "_");
    KEYS.iter().find(|key| key.name == name)
}

const fn field_of(path: &'static str) -> Option<&'static str> {
    // `node.x` is a field of the node's settings, everything else is ours.
    match path.as_bytes() {
        [b'n', b'o', b'd', b'e', b'.', ..] => Some(path.split_at(5).1),
        _ => None,
    }
}

macro_rules! keys {
    ($($name:literal ($form:ty $(, $secret:ident)?) => $first:ident $(. $more:ident)*, $doc:literal;)*) => {
        /// All settings: those without a table first, then table by table.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            field: field_of(concat!(stringify!($first) $(, ".", stringify!($more))*)),
            doc: $doc,
            form: <$form as Codec>::FORM,
            is_secret: keys!(@secret $($secret)?),
            set: |settings, given| {
                settings.$first$(.$more)* = <$form as Codec>::read(given)?;
                Ok(())
            },
            show: |settings| <$form as Codec>::show(&settings.$first$(.$more)*),
        }),*];
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

keys! {
    "data" (Maybe<Folder>) => node.data,
        "Folder that holds everything the node stores. Not in the file that lies in that folder.";
    "listen" (Address) => node.listen,
        "Address to listen on. Port 0 takes any free port and prints it.";
    "public_host" (Maybe<Text>) => node.public_host,
        "Host name, with port if it is not 443, under which others reach this node.";
    "public" (Flag) => node.is_public,
        "Strangers may reach this node: calls without a body may then come as GET. True by itself when public_host is set.";
    "quota" (Size) => node.default_quota_bytes,
        "Space each new account gets. `kastro quota default` changes it without a restart and then counts more than this.";
    "max_users" (Count<u64>) => node.max_users,
        "Accounts up to which anybody may sign up; further ones need an invite.";
    "signup_tokens" (Texts, secret) => node.signup_tokens,
        "Sign-up tokens to add at start, each good for one account. `kastro invite new` makes better ones.";
    "max_signups_per_day" (Count<u64>) => node.max_signups_per_day,
        "New names per day before sign-ups cost the newcomer proof of work; 0 refuses all new names.";
    "admins" (Names) => node.admins,
        "Users who may approve requests for space from their own client.";
    "waiting_list" (Flag) => node.waiting_list,
        "People may leave a mail address when sign-ups are closed (`kastro waitlist list`).";
    "monitoring" (Maybe<Address>) => node.monitoring,
        "Address for /metrics and /health, for who brings the token in the data folder's admin.token. Unset: the operator's socket only.";
    "monitoring_is_open" (Flag) => node.monitoring_is_open,
        "Allow a monitoring address that other machines reach. The token then crosses the network unencrypted.";
    "web" (Maybe<Folder>) => node.web,
        "Folder with a web application to serve.";
    "instance_bat" (Maybe<Token>, secret) => node.instance_bat,
        "Token that opens every block, for your own mirror of the whole node.";
    "upload_window" (Span) => node.upload_window,
        "Sliding window in which an account may upload as many bytes as its quota.";
    "metadata" (Metadata, secret) => node.metadata,
        "Where metadata is kept: \"folder\", or a PostgreSQL database that several nodes may share (docs/postgresql.md).";
    "blocks" (Blocks) => node.blocks,
        "Where the bytes of blocks are kept: \"folder\", or a bucket as docs/s3.md describes it.";
    "free_floor" (Floor) => node.free_floor,
        "Space of the file system to leave to others; \"default\" is 2 percent, at least 1 GiB. Below it blocks are refused, small ones below half of it.";
    "trusted_proxies" (Each<Vec<Network>>) => node.trusted_proxies,
        "Reverse proxies in front of this node, as addresses or networks (10.0.0.0/8): only what comes from them may say for whom it asks.";
    "server_ids" (Ids) => node.server_ids,
        "Server ids to answer to instead of the one of the data folder's key; the last one is current. For a move from another machine.";
    "name_authority" (Maybe<Parsed<NameAuthority>>) => node.name_authority,
        "The network whose names this node follows, as `kastro names status` prints it there. For a node's first start; unset: it gives out names of its own.";
    "log" (Text) => log,
        "How much to log: error, warn, info, debug, trace, or a filter such as `node=debug`.";
    "log_format" (Format) => log_format,
        "Form of the log lines on standard error.";
    "limits.connections" (Count<usize>) => node.limits.connections,
        "Open connections of all listeners; more are answered with 503.";
    "limits.connections_per_address" (Count<usize>) => node.limits.connections_per_address,
        "Open connections of one address (of one /64 in IPv6); this machine and trusted proxies are exempt.";
    "limits.requests" (Count<usize>) => node.limits.requests,
        "Requests at work; more are answered with 503.";
    "limits.requests_per_address" (Count<usize>) => node.limits.requests_per_address,
        "Requests of one address at work; more are answered with 429. This machine is exempt.";
    "limits.buffered_bytes" (SizeInMemory) => node.limits.buffered_bytes,
        "Bodies and answers in memory; what would be above is answered with 503.";
    "limits.header_timeout" (Span) => node.limits.header_timeout,
        "Time to send the head of a request.";
    "limits.keep_alive" (Span) => node.limits.keep_alive,
        "Time a connection is kept between an answer and the next request.";
    "limits.body_idle" (Span) => node.limits.body_idle,
        "Longest wait for the next piece of a body.";
    "limits.body_time" (Span) => node.limits.body_time,
        "Longest time for a whole body.";
    "limits.slow_after" (Span) => node.limits.slow_after,
        "After this much time of sending or receiving the rate must be at least min_rate.";
    "limits.min_rate" (Size) => node.limits.min_rate,
        "Least bytes a second of a client that sends a body or takes an answer.";
    "limits.shutdown_grace" (Span) => node.limits.shutdown_grace,
        "How long requests in flight may run after shutdown began.";
    "tls.listen" (Maybe<Address>) => node.tls.listen,
        "Where TLS is served. Unset: no TLS, or a reverse proxy has it.";
    "tls.redirect" (Maybe<Address>) => node.tls.redirect,
        "Where a plain listener sends browsers to the TLS one and certificate authorities look, usually port 80.";
    "tls.certificate" (Maybe<Folder>) => node.tls.certificate,
        "PEM file with the certificate, then those that lead to the root; looked at every ten seconds. Unset: a certificate authority is asked.";
    "tls.key" (Maybe<Folder>) => node.tls.key,
        "PEM file with the private key, readable by its owner only.";
    "tls.acme_names" (Texts) => node.tls.acme_names,
        "Names to ask a certificate authority for; public_host when empty.";
    "tls.acme_contact" (Maybe<Text>) => node.tls.acme_contact,
        "Mail address to which the certificate authority may write.";
    "tls.acme_directory" (Text) => node.tls.acme_directory,
        "Address of the certificate authority's directory.";
    "tls.acme_root" (Maybe<Folder>) => node.tls.acme_root,
        "PEM file with the root certificate of that address, for an authority of one's own.";
    "collection.period" (Span) => node.collection.period,
        "Time from one garbage collection of everything to the next; \"0 s\" never collects.";
    "collection.grace" (Span) => node.collection.grace,
        "How long what was replaced stays readable at least.";
    "collection.duty_percent" (Count<u8>) => node.collection.duty_percent,
        "Most of one processor core that a collection uses, in percent.";
    "collection.early_bytes" (Size) => node.collection.early_bytes,
        "Whoever has this much garbage is collected as soon as the grace period allows.";
    "mirror.is_automatic" (Flag) => node.mirror.is_automatic,
        "Look once a minute for what changed at other nodes: names, and the users that are mirrored here.";
    "mirror.bytes_per_second" (Maybe<Size>) => node.mirror.bytes_per_second,
        "Most bytes of blocks read from other nodes a second. Unset: no bound.";
    "pages.apps" (Each<BTreeSet<Label>>) => node.pages.apps,
        "Apps of the web application that have a host of their own, <app>.<public_host>.";
    "pages.inline_scripts" (Each<Vec<ScriptHash>>) => node.pages.inline_scripts,
        "SHA-256 hashes of inline scripts that sandbox pages may run; they belong to one version of the web application.";
    "pages.frame_sources" (Each<Vec<FrameSource>>) => node.pages.frame_sources,
        "Sites whose payment pages may be framed.";
    "pages.block_hosts" (Each<Vec<BlockHost>>) => node.pages.block_hosts,
        "Hosts that browsers read blocks from and write them to without the node between.";
    "p2p.enable" (Flag) => node.p2p.is_enabled,
        "Reach other nodes and be reached by them, over libp2p (docs/p2p.md).";
    "p2p.listen" (Each<Vec<Multiaddr>>) => node.p2p.listen,
        "Where to listen for other nodes, as multiaddresses. A busy port is replaced by a free one; an address that ends in /p2p-circuit is reserved at that relay.";
    "p2p.announce" (Each<Vec<Multiaddr>>) => node.p2p.announce,
        "Addresses to tell others, for a node behind a forwarded port.";
    "p2p.bootstrap" (Each<Vec<Multiaddr>>) => node.p2p.bootstrap,
        "Nodes that lead into a network, each with /p2p/ and its id at the end. Empty: no network, only nodes of p2p.peers and those that call.";
    "p2p.peers" (Each<Vec<Multiaddr>>) => node.p2p.known,
        "Addresses of known nodes, each with /p2p/ and its id at the end.";
    "p2p.dial" (Scope) => node.p2p.dials,
        "Which addresses that others tell of are dialed: \"public\", also of \"private\" networks, or \"any\", this machine included. Those of the settings always are.";
    "p2p.relay" (Flag) => node.p2p.is_relay,
        "Pass connections on to nodes that nobody can dial, within narrow limits, while this one can be dialed.";
    "p2p.foreign_logins" (Flag) => node.p2p.allows_foreign_logins,
        "Let people whose home is another node log in here; their requests are passed on to it.";
    "p2p.gateway" (Flag) => node.p2p.has_gateway,
        "Let programs of this machine ask other nodes by POST /p2p/<id>/http/<path>.";
    "scrub.period" (Span) => node.scrub.period,
        "Time from the start of one verification of all blocks to the start of the next; \"0 s\" never verifies.";
    "scrub.bytes_per_second" (Size) => node.scrub.bytes_per_second,
        "Most bytes the verification reads a second.";
}
