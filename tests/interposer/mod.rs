//! Builds the library that stands between a program and the system.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The library, for `LD_PRELOAD`; built once per test program with the C compiler that the crate needs anyway.
pub fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interposer/files.c");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}.so", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let status = Command::new(&compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&target).arg(source).status();
        let status = status.unwrap_or_else(|error| panic!("the C compiler {compiler} cannot be run: {error}"));
        assert!(status.success(), "{compiler} did not build {source}");
        target
    };
    BUILT.get_or_init(build).clone()
}
