//! The fences of rows, asked for by their keys.

use millpond::ids::{Position, RowKey};
use postgres::{Client, Config, NoTls};
use std::collections::HashMap;
use std::time::Duration;

/// A shard's rows. It connects when it is asked, again where it has to.
pub struct Rows {
    address: Config,
    client: Option<Client>,
}

impl Rows {
    pub fn of(address: &str) -> Self {
        let mut address: Config = address.parse().unwrap();
        address
            .application_name("checker")
            .connect_timeout(Duration::from_secs(2))
            // Whoever locks the table holds us no longer than that.
            .options("-c statement_timeout=2s");
        Self {
            address,
            client: None,
        }
    }

    /// Those that are there. `None`: nobody answers now.
    pub fn fences(&mut self, rows: &[RowKey]) -> Option<HashMap<RowKey, Position>> {
        let found = self.ask(rows);
        if found.is_none() {
            self.client = None;
        }
        found
    }

    fn ask(&mut self, rows: &[RowKey]) -> Option<HashMap<RowKey, Position>> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(self.address.connect(NoTls).ok()?),
        };
        let apps: Vec<String> = rows.iter().map(|row| row.app.to_string()).collect();
        let own: Vec<String> = rows
            .iter()
            .map(|row| row.subscription.to_string())
            .collect();
        let query = "SELECT asked.at, source_incarnation, source_leader_epoch, source_offset \
                     FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked(app, own, at) JOIN subscription \
                     ON app_id = asked.app::uuid AND subscription_id = asked.own::uuid";
        let found = client.query(query, &[&apps, &own]).ok()?;
        let fence = |row: &postgres::Row| {
            let at: i64 = row.get(0);
            let fence = Position {
                incarnation: row.get(1),
                leader_epoch: row.get(2),
                offset: row.get(3),
            };
            (rows[usize::try_from(at - 1).unwrap()], fence)
        };
        Some(found.iter().map(fence).collect())
    }
}
