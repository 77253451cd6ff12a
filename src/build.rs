//! Has the linker put `kafka/guard.rs` in front of a function of librdkafka, in every program and system test.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for programs in ["bins", "tests"] {
            println!("cargo::rustc-link-arg-{programs}=-Wl,--wrap=rd_kafka_metadata_update_op");
        }
    }
}
