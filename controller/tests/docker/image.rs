//! The image of all test containers: `ringlb-load` and the shared libraries that it needs, as an archive to import.

use crate::engine::Engine;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Its name.
pub(crate) const IMAGE: &str = "ringlb-test";
/// The program that a container runs, given arguments.
pub(crate) const ENTRY_POINT: &str = r#"ENTRYPOINT ["/ringlb-load"]"#;

/// The archive.
fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let load = program("ringlb-load");
        let program = [(load.clone(), PathBuf::from("/ringlb-load"))];
        let libraries = libraries_of(&load).into_iter().map(|library| (library.clone(), library));
        pack(program.into_iter().chain(libraries))
    })
}

/// Makes it known to an Engine by that name, changed by these instructions of a Dockerfile.
pub(crate) fn import_image(engine: &Engine, name: &str, instructions: &[&str]) {
    import(engine, archive(), name, instructions);
}

/// An archive of files, each with the path that it gets.
pub(crate) fn pack(files: impl IntoIterator<Item = (PathBuf, PathBuf)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    // The Engine knows no sparse files.
    archive.sparse(false);
    for (file, path) in files {
        // The content, whatever links lead to it.
        let found = std::fs::canonicalize(&file).unwrap();
        archive.append_path_with_name(found, path.strip_prefix("/").unwrap()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Makes an image of an archive, changed by these instructions of a Dockerfile.
pub(crate) fn import(engine: &Engine, archive: &[u8], name: &str, instructions: &[&str]) {
    let changes = instructions.iter().flat_map(|instruction| ["--change", *instruction]);
    let mut command = engine.cli();
    command.arg("import").args(changes).args(["-", name]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The paths that the loader opens for a program, itself included (ldd(1)).
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let listed = crate::wait::finish(Command::new("ldd").arg(program));
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// A program of this workspace, next to the one under test.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ringlb")).with_file_name(name);
    assert!(path.exists(), "{} is missing: `make test` builds it", path.display());
    path
}
