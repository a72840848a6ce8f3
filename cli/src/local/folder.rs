//! A local folder held open, and everything that is changed in it (Spec: 40 FS-1).
//!
//! Invariant: a name is one component and is looked up in the folder itself, never through a link. Who puts a link in the
//! place of a folder meanwhile leads nothing away: the folder that was opened stays the one that is worked in. Only the folder
//! that a person has named is found by its path.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};

use super::partial::PART_PREFIX;

/// Which names are the same to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameRules {
    /// Whichever the disk takes for the same.
    #[default]
    OfTheDisk,
    /// All that any disk takes for the same, played on top of one that does not.
    #[cfg(test)]
    Folding,
}

/// A folder held open. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Folder {
    handle: Arc<OwnedFd>,
    path: PathBuf,
    rules: NameRules,
}

impl Folder {
    /// Opens the folder that a person has named, through links if need be.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_rules(path, NameRules::OfTheDisk)
    }

    /// As [`Self::open`], on a disk with these rules.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn with_rules(path: &Path, rules: NameRules) -> io::Result<Self> {
        let named = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let handle = openat(CWD, named, FOLDER, Mode::empty())?;
        Ok(Self {
            handle: Arc::new(handle),
            path: path.to_path_buf(),
            rules,
        })
    }

    /// Opens the folder that something named by a person is in, and returns the last name.
    ///
    /// # Errors
    ///
    /// Of the file system; `InvalidInput` when the path does not end in a name.
    pub fn holding(path: &Path) -> io::Result<(Self, OsString)> {
        let name = path.file_name().ok_or_else(no_name)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok((Self::open(folder)?, name.to_owned()))
    }

    /// Returns the path by which it was found, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder in it. A link to one is `NotADirectory`.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn enter(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = self.resolve(name.as_ref())?;
        let handle = match openat(
            &*self.handle,
            &*name,
            FOLDER | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            // What other systems say of a link.
            Err(Errno::LOOP) => Err(Errno::NOTDIR),
            opened => opened,
        };
        Ok(Self {
            handle: Arc::new(handle?),
            path: self.path.join(name),
            rules: self.rules,
        })
    }

    /// Opens a folder in it, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::enter`].
    pub fn enter_or_make(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        match self.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entered => return entered,
        }
        let name = self.resolve(name)?;
        match mkdirat(&*self.handle, &*name, Mode::from_raw_mode(0o777)) {
            // Somebody was faster.
            Ok(()) | Err(Errno::EXIST) => self.enter(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns how what has a name looks, itself and not what a link leads to; `None` when there is nothing.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Metadata>> {
        let name = self.resolve(name.as_ref())?;
        #[cfg(target_os = "linux")]
        let found = openat(
            &*self.handle,
            &*name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)
        .and_then(|handle| File::from(handle).metadata());
        #[cfg(not(target_os = "linux"))]
        let found = std::fs::symlink_metadata(self.path.join(name));
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file for its owner alone, new or there already, and not what a link leads to.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn open_own(&self, name: impl AsRef<OsStr>, is_there: bool) -> io::Result<File> {
        // A pipe that nobody reads must not hold us up either.
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if !is_there {
            flags |= OFlags::CREATE | OFlags::EXCL;
        }
        let name = self.resolve(name.as_ref())?;
        let opened = openat(&*self.handle, &*name, flags, Mode::from_raw_mode(0o600))?;
        Ok(opened.into())
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = self.resolve(name.as_ref())?;
        Ok(unlinkat(&*self.handle, &*name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = self.resolve(name.as_ref())?;
        Ok(unlinkat(&*self.handle, &*name, AtFlags::REMOVEDIR)?)
    }

    /// Gives a file or folder another name, perhaps in another folder, in the place of a file that has it.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn replace(
        &self,
        name: impl AsRef<OsStr>,
        target: &Self,
        new: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let name = self.resolve(name.as_ref())?;
        let new = match target.resolve(new.as_ref())? {
            // It is the item itself, in another spelling, and is to be written like that.
            met if met == name => Cow::Borrowed(new.as_ref()),
            met => met,
        };
        Ok(renameat(&*self.handle, &*name, &*target.handle, &*new)?)
    }

    /// Gives a file or folder a name that nothing has.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, and others of the file system.
    pub fn rename(
        &self,
        name: impl AsRef<OsStr>,
        target: &Self,
        new: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let name = self.resolve(name.as_ref())?;
        let new = target.resolve(new.as_ref())?;
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            use rustix::fs::{RenameFlags, renameat_with};
            let only_new = RenameFlags::NOREPLACE;
            match renameat_with(&*self.handle, &*name, &*target.handle, &*new, only_new) {
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                renamed => return Ok(renamed?),
            }
        }
        if target.look(&new)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(renameat(&*self.handle, &*name, &*target.handle, &*new)?)
    }

    /// Returns the names of everything in it, as they are written on the disk.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        // The handle itself is not for reading.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = openat(&*self.handle, ".", flags, Mode::empty())?;
        for entry in Dir::new(readable)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Asks the disk which of some names are the same to it: says for each the first one before it that is. Empty files
    /// are made in a hidden folder and removed again. A name that the disk does not take is like no other.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn meeting(&self, names: &[&str]) -> io::Result<Vec<Option<usize>>> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let hidden = format!("{PART_PREFIX}names-{}", HEXLOWER.encode(&random));
        mkdirat(&*self.handle, hidden.as_str(), Mode::from_raw_mode(0o700))?;
        let probe = self.enter(&hidden)?;
        let mut made = Vec::new();
        let mut found = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let same = match probe.open_own(name, false) {
                Ok(_) => {
                    made.push((index, probe.look(name)?.as_ref().map(number)));
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let there = probe.look(name)?.as_ref().map(number);
                    let same = made.iter().find(|(_, made)| *made == there);
                    same.map(|(index, _)| *index)
                }
                Err(_) => None,
            };
            found.push(same);
        }
        for (index, _) in made {
            if let Some(name) = names.get(index) {
                let _ = probe.remove_file(name);
            }
        }
        self.remove_folder(&hidden)?;
        Ok(found)
    }

    /// Returns a name as it is looked up: one component, and where the rules are played, as what it meets is written.
    fn resolve<'a>(&self, name: &'a OsStr) -> io::Result<Cow<'a, OsStr>> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(no_name());
        }
        #[cfg(test)]
        if self.rules == NameRules::Folding {
            use super::spelling::common;
            let wanted = name.to_str().map(common);
            let meets = |there: &OsString| there.to_str().map(common) == wanted;
            if let Some(there) = self.names()?.into_iter().find(meets) {
                return Ok(Cow::Owned(there));
            }
        }
        Ok(Cow::Borrowed(name))
    }
}

fn number(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

fn no_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not the name of one item")
}

/// How folders are opened: to work in them, not to read them.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How folders are opened.
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn fs_1_names_that_lead_away_are_refused_by_every_call() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir(parent.path().join("b")).unwrap();
        fs::write(root.join("file"), "1").unwrap();
        fs::write(parent.path().join("victim"), "keep").unwrap();
        let folder = Folder::open(&root).unwrap();
        for name in [
            "",
            ".",
            "..",
            "../b",
            "../victim",
            "../../x",
            "a/../../b",
            "/tmp",
            "/abs",
            "a/",
            "x\0",
        ] {
            assert!(folder.enter(name).is_err(), "{name:?}");
            assert!(folder.enter_or_make(name).is_err(), "{name:?}");
            assert!(folder.look(name).is_err(), "{name:?}");
            assert!(folder.open_own(name, false).is_err(), "{name:?}");
            assert!(folder.open_own(name, true).is_err(), "{name:?}");
            assert!(folder.remove_file(name).is_err(), "{name:?}");
            assert!(folder.remove_folder(name).is_err(), "{name:?}");
            for (from, to) in [("file", name), (name, "new")] {
                assert!(folder.replace(from, &folder, to).is_err(), "{name:?}");
                assert!(folder.rename(from, &folder, to).is_err(), "{name:?}");
            }
        }
        let mut left = folder.names().unwrap();
        left.sort();
        assert_eq!(left, ["a", "file"]);
        // What leads away on other systems is a name like others here.
        for name in ["..\\..\\x", "C:\\x", "\\\\srv\\s"] {
            drop(folder.open_own(name, false).unwrap());
            assert!(root.join(name).is_file());
            folder.remove_file(name).unwrap();
        }
        let victim = fs::read_to_string(parent.path().join("victim")).unwrap();
        assert_eq!(victim, "keep");
    }

    #[test]
    fn fs_1_links_are_neither_entered_nor_opened_also_when_they_come_late() {
        let parent = tempfile::tempdir().unwrap();
        let (root, outside) = (parent.path().join("root"), parent.path().join("outside"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "keep").unwrap();
        let folder = Folder::open(&root).unwrap();
        let sub = folder.enter("sub").unwrap();
        // Between opening and writing somebody puts a link in the place of the folder.
        fs::rename(root.join("sub"), root.join("moved")).unwrap();
        symlink(&outside, root.join("sub")).unwrap();
        symlink(outside.join("file"), root.join("moved/link")).unwrap();
        drop(sub.open_own("file", false).unwrap());
        assert!(root.join("moved/file").is_file());
        for is_there in [true, false] {
            assert!(sub.open_own("link", is_there).is_err());
        }
        sub.remove_file("link").unwrap();
        sub.rename("file", &sub, "other").unwrap();
        assert!(sub.enter_or_make("new").is_ok());
        for entered in [folder.enter("sub"), folder.enter_or_make("sub")] {
            let kind = entered.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::NotADirectory);
        }
        assert!(folder.look("sub").unwrap().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "keep");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let moved = Folder::open(&root.join("moved")).unwrap();
        let mut names = moved.names().unwrap();
        names.sort();
        assert_eq!(names, ["new", "other"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_when_asked() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "a").unwrap();
        fs::write(root.path().join("b"), "b").unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let error = folder.rename("a", &folder, "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        folder.replace("a", &folder, "b").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("b")).unwrap(), "a");
        folder.rename("b", &folder, "c").unwrap();
        assert_eq!(folder.names().unwrap(), ["c"]);
        assert!(folder.look("b").unwrap().is_none());
    }

    #[test]
    fn the_disk_says_which_names_meet() {
        let root = tempfile::tempdir().unwrap();
        let names = ["A", "b", "a", "B", "\u{e9}", "e\u{301}", "x", "x."];
        let folder = Folder::with_rules(root.path(), NameRules::Folding).unwrap();
        let meeting = folder.meeting(&names).unwrap();
        let pairs = [None, None, Some(0), Some(1), None, Some(4), None, Some(6)];
        assert_eq!(meeting, pairs);
        assert_eq!(folder.names().unwrap().len(), 0);
        // This one, whatever it is, does not take different letters for the same.
        let folder = Folder::open(root.path()).unwrap();
        assert_eq!(folder.meeting(&["a", "b"]).unwrap(), [None, None]);
        assert_eq!(folder.names().unwrap().len(), 0);
    }
}
