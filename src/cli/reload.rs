//! SIGHUP on `run`: the thread "mp-reload" reads the configuration again, from the same file, environment and flags, and hands
//! it over. A configuration with errors changes nothing.

use super::ConfigArgs;
use crate::pipeline::control::Control;
use crate::vital;
use anyhow::Context;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};
use std::sync::Arc;

/// Listens from now on, until the handle is closed.
pub(super) fn reload_at_hangup(args: ConfigArgs, control: Arc<Control>) -> anyhow::Result<Handle> {
    let mut signals = Signals::new([SIGHUP]).context("SIGHUP can't be listened for")?;
    let handle = signals.handle();
    let listen = move || {
        for _ in signals.forever() {
            match args.load() {
                Ok(loaded) => control.reload(&loaded),
                Err(error) => {
                    tracing::error!(%error, "SIGHUP: the configuration has errors; nothing is changed");
                }
            }
        }
    };
    vital::spawn("mp-reload", listen).context("no thread for SIGHUP")?;
    Ok(handle)
}
