//! Says for which machine this was built: what fuzzes is built for it by name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let triple = std::env::var("TARGET").expect("cargo says it");
    println!("cargo::rustc-env=XTASK_TRIPLE={triple}");
}
