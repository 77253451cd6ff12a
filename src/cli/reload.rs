//! SIGHUP on `run`: the thread "mp-reload" reads the configuration again, from the same file, environment and flags, and hands
//! it over. A configuration with errors changes nothing.

use super::ConfigArgs;
use crate::pipeline::control::Control;
use anyhow::Context;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};
use std::sync::Arc;
use std::thread::Builder;

/// Listens from now on, until the handle is closed.
pub(super) fn reload_at_hangup(args: ConfigArgs, control: Arc<Control>) -> anyhow::Result<Handle> {
    let mut signals = Signals::new([SIGHUP]).context("SIGHUP can't be listened for")?;
    let handle = signals.handle();
    Builder::new()
        .name("mp-reload".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                match args.load() {
                    Ok(loaded) => control.reload(&loaded),
                    Err(error) => {
                        tracing::error!(%error, "SIGHUP: the configuration has errors; nothing is changed");
                    }
                }
            }
        })
        .context("no thread for SIGHUP")?;
    Ok(handle)
}
