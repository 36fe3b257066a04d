//! What ringlb has made with an Engine, for whoever cleans up.

use super::Location;
use super::compose::{HOLDER_IMAGE, HOLDER_LABEL};
use super::engine::{Containers, Engine, EngineError};
use super::sandbox_files::{self, SandboxFile};
use std::fs;
use std::io;
use std::path::Path;

/// A container that holds a VIP.
#[derive(Debug)]
pub(crate) struct FoundHolder {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Its namespace, while it runs.
    pub(crate) sandbox: Option<SandboxFile>,
}

/// What there may be.
#[derive(Debug)]
pub(crate) struct Remains {
    engine: Engine,
}

impl Remains {
    /// Those of an Engine.
    pub(crate) async fn of(engine: &Location) -> Result<Self, EngineError> {
        Ok(Self { engine: Engine::connect(&engine.socket).await? })
    }

    /// All containers that hold VIPs. `sandboxes` is where the Engine's namespaces are mounted.
    pub(crate) async fn holders(&self, sandboxes: &Path) -> Result<Vec<FoundHolder>, EngineError> {
        let mut found = Vec::new();
        for container in self.engine.containers(Containers::Labelled(HOLDER_LABEL)).await? {
            let Some(key) = self.engine.sandbox_key(&container.id).await? else { continue };
            let file = Path::new(&key).file_name();
            let sandbox = file.and_then(|file| sandbox_files::look(&sandboxes.join(file)));
            found.push(FoundHolder { id: container.id, name: container.name, sandbox });
        }
        Ok(found)
    }

    /// Removes a holder.
    pub(crate) async fn remove_holder(&self, holder: &FoundHolder) -> Result<(), EngineError> {
        self.engine.remove_container(&holder.id).await
    }

    /// Removes the image of holders; gives its name if it was there.
    pub(crate) async fn remove_image(&self) -> Result<Option<&'static str>, EngineError> {
        if !self.engine.has_image(HOLDER_IMAGE).await? {
            return Ok(None);
        }
        self.engine.remove_image(HOLDER_IMAGE).await?;
        Ok(Some(HOLDER_IMAGE))
    }
}

/// The Engine's sandboxes of swarm networks, in the directory in which it mounts them. Without the directory there is none.
pub(crate) fn sandboxes(directory: &Path) -> io::Result<Vec<SandboxFile>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(sandbox_files::is_name) {
            found.extend(sandbox_files::look(&directory.join(name)));
        }
    }
    Ok(found)
}
