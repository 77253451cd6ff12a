//! System tests: the real binary, real Kafka, real Postgres. `tests/run` starts the services and names them in the
//! environment (MILLPOND_TEST_KAFKA, MILLPOND_TEST_POSTGRES_0, …); every test has topics and databases of its own.
//!
//! - [`pond`]: a topic, two shards, a configuration, and the commands on them
//! - [`child`]: a millpond process that is ended with its test
//! - [`services`]: the broker and the servers, killed or frozen and given back
//! - [`proxy`]: bad networks between a process and a service
//! - [`checker`]: looks along while harm is done, and has tests of its own
//! - [`reading`]: one reading of a consumer's metrics
//! - `fuzz`: inputs that nobody meant to send, as the unit tests have them
//! - [`browser`]: a real one without a window
//! - [`spine`]: everything is applied, exactly, whatever is killed
//! - [`mutants`]: deliberately broken builds are noticed
//! - [`members`]: processes of a group come and go
//! - [`interleavings`]: other writers, refusals and crashes in every order
//! - [`incident`]: one row gets nearly half of all messages
//! - [`found`]: that is found by what there is to look at
//! - [`load_http`]: traffic through the edge, and a spike of it
//! - [`write_rate`]: the bound on a shard's writes, by Postgres' own counters
//! - [`bad_input`]: each reason of a dead letter
//! - [`letters`]: dead letters are listed, sent again and dropped
//! - [`links`]: rows that are linked to parents
//! - [`losses`]: records are gone before they were read
//! - [`repartition`]: a shard is added, and the topic made with more partitions
//! - [`rewind`]: a database that lost a tail gets it again
//! - [`failover`]: a standby that lacks a tail takes over
//! - [`rules`]: skip rules hold on every process, over restarts, moves and kills
//! - [`tables`]: tables that the configuration describes
//! - [`library`]: a program that reads and writes by itself
//! - [`demo`]: everything in one process, with nothing installed
//! - [`trouble`]: a row, a shard or a limit in trouble
//! - [`bad_days`]: something is missing, away, or another one
//! - [`secure`]: TLS and passwords, right and wrong, and where passwords must not show
//! - [`rotation`]: passwords that change, roles that expire
//! - [`roles`], [`acls`]: the least that each command may, in Postgres and in Kafka
//! - [`admin`]: no change without the token, and whatever else is sent to the admin address
//! - [`workers`]: their number changes under load
//! - [`hangup`]: the configuration is read again
//! - [`gaps`]: offsets that no update has
//! - [`hot`]: hot rows and apps are seen
//! - [`inspect`]: kcat and kafka-consumer-groups agree with what looks from outside
//! - [`assets`]: dashboard, alerts and units, given to the tools that they are for
//! - [`notify`]: what a process manager hears
//! - [`logs`]: a stderr that nobody reads, and watched apps
//! - [`traces`]: spans, as a receiver gets them ([`receiver`])
//! - [`page`]: the status page in that browser
//! - [`ingest`]: the HTTP edge, by raw sockets
//! - [`allocations`]: none of ours for a message
//! - [`mix`]: all kinds of faults at random, over one another, and for hours
//! - [`faults`]: the ten worst faults under load, and SIGTERM during them
//! - [`limits`]: the same with a machine that gives too little, a clock that jumps, threads that panic
//! - [`cluster`]: three brokers, of which one after the other goes
//! - [`network`]: connections that are cut, silent, slow or narrow

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests say what they saw"
)]

mod acls;
mod admin;
mod allocations;
mod assets;
mod bad_days;
mod bad_input;
mod browser;
mod checker;
mod child;
mod cluster;
mod demo;
mod failover;
mod faults;
mod found;
#[path = "../../src/fuzz.rs"]
mod fuzz;
mod gaps;
#[cfg(target_os = "linux")]
#[path = "../../src/kafka/guard.rs"]
mod guard;
mod hangup;
mod hot;
mod incident;
mod ingest;
mod inspect;
mod interleavings;
mod letters;
mod library;
mod limits;
mod links;
mod load_http;
mod logs;
mod losses;
mod members;
mod mix;
mod mutants;
mod network;
mod notify;
mod page;
mod pond;
mod proxy;
mod reading;
mod receiver;
mod repartition;
mod rewind;
mod roles;
mod rotation;
mod rules;
mod secure;
mod services;
mod spine;
mod tables;
mod traces;
mod trouble;
mod workers;
mod write_rate;
