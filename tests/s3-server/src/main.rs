//! An S3 server on loopback, for tests: `s3-server FOLDER KEY-ID SECRET`.
//!
//! It keeps each bucket as a folder below FOLDER, prints its address as the first line, and ends when its standard
//! input does; FOLDER goes with it. A program of its own because the S3 types take minutes to compile: only who runs these tests pays.

use std::path::PathBuf;

use anyhow::Context as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("usage: s3-server FOLDER KEY-ID SECRET")
    };
    let (folder, key, secret) = (PathBuf::from(next()?), next()?, next()?);
    let files = s3s_fs::FileSystem::new(&folder)
        .map_err(|error| anyhow::anyhow!("cannot use the folder: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(key, secret));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    #[expect(
        clippy::print_stdout,
        reason = "whoever started this waits for the line"
    )]
    {
        println!("{}", listener.local_addr()?);
    }
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                socket.set_nodelay(true)?;
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // A client that goes away is none of our business.
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
            }
            read = input.read(&mut byte) => if read? == 0 {
                std::fs::remove_dir_all(folder)?;
                // Runtime and connections have nothing left to say.
                std::process::exit(0);
            },
        }
    }
}
