//! `swap` replaces the applets of a folder by links to another provider, keeps backups, and restores them.
//!
//! A miniature of the tools that the harness of this repository is made for: it changes the machine it runs on, so what
//! it promises can only be tested by letting it do so. Exit codes: 0 done, 1 failed or refused, 2 wrong usage.

mod cli;
mod error;
mod experiment;
mod plan;
mod report;
mod root;
mod state;
mod status;
mod swap;
#[cfg(test)]
mod testroot;

use std::env;
use std::process::ExitCode;

use cli::{Command, Order};
use error::Error;
use report::Report;

fn main() -> ExitCode {
    let mut report = Report::default();
    let result =
        cli::parse(env::args_os().skip(1), env::var_os("SWAP_ROOT")).and_then(|order| obey(&order, &mut report));
    let code = match &result {
        Ok(()) => 0,
        Err(error) => {
            report.error(error);
            error.exit_code()
        }
    };
    match report.print() {
        Ok(()) => ExitCode::from(code),
        // Nobody is left to be told: the exit code is all that still arrives.
        Err(_) => ExitCode::from(code.max(1)),
    }
}

fn obey(order: &Order, report: &mut Report) -> Result<(), Error> {
    match &order.command {
        Command::Help => report.text(cli::USAGE),
        Command::Version => report.text(concat!("swap ", env!("CARGO_PKG_VERSION"))),
        Command::Enable { experiments, mode } => {
            swap::enable(&order.root, experiments, *mode, report)?;
        }
        Command::Disable { experiments } => swap::disable(&order.root, experiments, report)?,
        Command::Status { format } => {
            let status = status::read(&order.root)?;
            report.text(&status.show(*format));
        }
    }
    Ok(())
}
