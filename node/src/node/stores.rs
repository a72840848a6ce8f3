//! The stores that the settings name.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use super::OpenError;
use crate::{
    config::{BlockPlace, Config, MetadataPlace},
    store::{
        Clock as StoreClock, DiskOptions, DiskStore, MemoryStore, MetaEngine, PostgresStore, Store,
        s3::S3Blocks,
    },
    web::BlockHost,
};

/// Opens the store that `config` names, wherever its halves are.
pub(crate) async fn open_data_set(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    with_blocks(config, open_store(config).await?).await
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    if let MetadataPlace::Postgres(options) = &config.metadata {
        if let Some(folder) = &config.data {
            make_folder(folder).map_err(|source| OpenError::Folder {
                path: folder.clone(),
                source,
            })?;
        }
        let mut options = options.as_ref().clone();
        options.clock = store_clock(config);
        return Ok(Arc::new(PostgresStore::open(options).await?));
    }
    let Some(folder) = &config.data else {
        return Ok(Arc::new(MemoryStore::new()));
    };
    make_folder(folder).map_err(|source| OpenError::Folder {
        path: folder.clone(),
        source,
    })?;
    let mut options = DiskOptions::new(config.store_folder().unwrap_or_else(|| folder.clone()));
    options.free_floor = config.free_floor;
    Ok(Arc::new(DiskStore::open(options)?))
}

/// Returns the host that browsers transfer blocks with, if the store lets them (Spec: 13 §5).
pub(super) fn block_host(store: &dyn Store) -> Option<BlockHost> {
    let offer = store.direct()?.offer();
    offer.origin.strip_prefix("https://")?.parse().ok()
}

/// Returns the node's clock as stores read it.
fn store_clock(config: &Config) -> StoreClock {
    let of_node = Arc::clone(&config.clock);
    Arc::new(move || {
        let millis = u64::try_from(of_node.now_millis()).unwrap_or(0);
        std::time::UNIX_EPOCH + Duration::from_millis(millis)
    })
}

/// Puts the blocks where the settings want them.
async fn with_blocks(config: &Config, store: Arc<dyn Store>) -> Result<Arc<dyn Store>, OpenError> {
    let BlockPlace::S3(options) = &config.blocks else {
        return Ok(store);
    };
    let clock = store_clock(config);
    let meta: Arc<dyn MetaEngine> = store;
    let blocks =
        S3Blocks::open(options, meta.as_ref(), config.cache_folder(), clock.clone()).await?;
    Ok(Arc::new(blocks.with_metadata(meta, clock)))
}

/// Makes the data folder readable by its owner only: second factor keys are in it.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A folder that was made by other means; the keys in it are checked on their own.
        let mode = fs::metadata(folder)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            tracing::warn!(folder = %folder.display(), "others could enter the data folder; closed it to them");
        }
    }
    Ok(())
}
