//! The SQLite side of the forgetful disk: a VFS that passes everything to SQLite's own and writes
//! down what it passes.
//!
//! Locks, shared memory and reading are the real VFS's; memory-mapped reading is not offered. Syncs
//! are not passed on: only the log remembers them, which is the point, and makes tests fast.

#![expect(
    unsafe_code,
    reason = "a VFS is a table of C functions; test code alone, behind a feature"
)]

use super::{Kind, Log, Refused, kind_of, lock};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};
use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    io,
    mem::size_of,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// What `pAppData` of our VFS points to, for the life of the process.
struct Registered {
    real: *mut sqlite3_vfs,
    log: Arc<Mutex<Log>>,
}

/// Our part of an open file; the real VFS's part follows it in the same allocation.
#[repr(C)]
struct Handle {
    /// Must come first: SQLite sees a `sqlite3_file`.
    base: sqlite3_file,
    /// Null for temporary files, which have no name and are not written down.
    known: *mut Known,
}

struct Known {
    log: Arc<Mutex<Log>>,
    inode: u64,
    kind: Kind,
    path: PathBuf,
    /// SQLite's VFS syncs the folder once, with the first sync of a journal it made.
    sync_folder: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock_file),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Makes a VFS that writes to `log`, and gives its name. It stays until the process ends: SQLite has
/// no way to say that the last file of a VFS was closed.
pub(super) fn register(log: Arc<Mutex<Log>>) -> io::Result<String> {
    let name = format!("forgetful-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let c_name = CString::new(name.clone())?;
    // SAFETY: sqlite3_vfs_find(null) gives the default VFS, which lives for ever; every field of
    // the new table is set from it or by us; table, name and application data are leaked, so they
    // live as long as SQLite may use them.
    let code = unsafe {
        ffi::sqlite3_initialize();
        let real = ffi::sqlite3_vfs_find(ptr::null());
        if real.is_null() {
            return Err(io::Error::other("SQLite has no default VFS"));
        }
        let mut table = ptr::read(real);
        table.iVersion = 2;
        table.szOsFile += c_int::try_from(size_of::<Handle>()).map_err(io::Error::other)?;
        table.pNext = ptr::null_mut();
        table.zName = c_name.into_raw();
        table.pAppData = Box::into_raw(Box::new(Registered { real, log })).cast();
        table.xOpen = Some(open);
        table.xDelete = Some(delete);
        table.xAccess = Some(access);
        table.xFullPathname = Some(full_pathname);
        table.xRandomness = Some(randomness);
        table.xSleep = Some(sleep);
        table.xCurrentTime = Some(current_time);
        table.xCurrentTimeInt64 = Some(current_time_int64);
        table.xGetLastError = Some(last_error);
        table.xDlOpen = None;
        table.xDlError = None;
        table.xDlSym = None;
        table.xDlClose = None;
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(table)), 0)
    };
    if code == ffi::SQLITE_OK { Ok(name) } else { Err(io::Error::other("VFS refused")) }
}

/// # Safety
/// `vfs` must be one made by [`register`].
unsafe fn registered<'a>(vfs: *mut sqlite3_vfs) -> &'a Registered {
    // SAFETY: pAppData was set from a leaked box of this type and is never changed.
    unsafe { &*(*vfs).pAppData.cast::<Registered>() }
}

/// # Safety
/// `file` must have been opened by [`open`]; the real part lies behind ours, as szOsFile says.
unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the allocation is size_of::<Handle>() larger than the real VFS asked for.
    unsafe { file.cast::<Handle>().add(1).cast() }
}

/// # Safety
/// As [`real`]; the reference must not outlive the call it is used in.
unsafe fn known<'a>(file: *mut sqlite3_file) -> Option<&'a mut Known> {
    // SAFETY: `known` is null or a box of our own that `close` alone frees; SQLite uses a file from
    // one thread at a time.
    unsafe { (*file.cast::<Handle>()).known.as_mut() }
}

/// # Safety
/// `name` must be null or end in a NUL.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller says that it is a C string.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(Path::new(OsStr::from_bytes(bytes)).to_owned())
}

fn code(refused: Refused) -> c_int {
    match refused {
        Refused::Full => ffi::SQLITE_FULL,
        // What SQLite's own VFS makes of EROFS in a write.
        Refused::ReadOnly => ffi::SQLITE_READONLY,
        Refused::Sync => ffi::SQLITE_IOERR_FSYNC,
    }
}

/// Calls a method of the real file.
macro_rules! forward {
    ($file:ident, $method:ident $(, $arg:expr)*) => {{
        // SAFETY: SQLite calls this for a file that `open` opened, so its real part has a method
        // table; the arguments are handed on as they came.
        unsafe {
            let real = real($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $arg)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a VFS of ours, a file of szOsFile bytes, and a name that is null or a C
    // string. `known` is set before anything can fail, pMethods only when the file is open.
    unsafe {
        let us = registered(vfs);
        let handle = file.cast::<Handle>();
        (*handle).base.pMethods = ptr::null();
        (*handle).known = ptr::null_mut();
        let path = path_of(name);
        let existed = path.as_ref().is_some_and(|p| p.exists());
        if flags & ffi::SQLITE_OPEN_CREATE != 0
            && !existed
            && path.is_some()
            && let Err(refused) = lock(&us.log).may_write()
        {
            let full = refused == Refused::Full;
            return if full { ffi::SQLITE_FULL } else { ffi::SQLITE_CANTOPEN };
        }
        let Some(open) = (*us.real).xOpen else { return ffi::SQLITE_CANTOPEN };
        let outcome = open(us.real, name, real(file), flags, out_flags);
        if outcome != ffi::SQLITE_OK {
            return outcome;
        }
        if let Some(path) = path {
            let kind = kind_of(&path);
            let inode = {
                let mut log = lock(&us.log);
                log.count_open();
                log.inode(&path)
            };
            let log = Arc::clone(&us.log);
            let sync_folder = kind == Kind::Journal && flags & ffi::SQLITE_OPEN_CREATE != 0;
            (*handle).known =
                Box::into_raw(Box::new(Known { log, inode, kind, path, sync_folder }));
        }
        (*handle).base.pMethods = &raw const METHODS;
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let outcome = forward!(file, xClose);
    // SAFETY: SQLite closes a file once; the box was made by `open`.
    unsafe {
        let handle = file.cast::<Handle>();
        if !(*handle).known.is_null() {
            let known = Box::from_raw((*handle).known);
            let mut log = lock(&known.log);
            log.open = log.open.saturating_sub(1);
            drop(log);
            (*handle).known = ptr::null_mut();
        }
    }
    outcome
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    to: *mut c_void,
    n: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: a file of ours.
    if let Some(known) = unsafe { known(file) } {
        lock(&known.log).calls.reads += 1;
    }
    forward!(file, xRead, to, n, at)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    n: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: a file of ours.
    let Some(known) = (unsafe { known(file) }) else { return forward!(file, xWrite, from, n, at) };
    let mut log = lock(&known.log);
    if let Err(refused) = log.may_write() {
        return code(refused);
    }
    let outcome = forward!(file, xWrite, from, n, at);
    if outcome == ffi::SQLITE_OK {
        let len = usize::try_from(n).unwrap_or(0);
        // SAFETY: SQLite gives a buffer of `n` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), len) };
        log.write(known.inode, u64::try_from(at).unwrap_or(0), bytes);
    }
    outcome
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, len: sqlite3_int64) -> c_int {
    let outcome = forward!(file, xTruncate, len);
    // SAFETY: a file of ours.
    if let (ffi::SQLITE_OK, Some(known)) = (outcome, unsafe { known(file) }) {
        let len = u64::try_from(len).unwrap_or(0);
        lock(&known.log).events.push(super::Event::Truncate { inode: known.inode, len });
    }
    outcome
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: a file of ours.
    let Some(known) = (unsafe { known(file) }) else { return ffi::SQLITE_OK };
    let mut log = lock(&known.log);
    if let Err(refused) = log.sync(known.inode, known.kind) {
        return code(refused);
    }
    if std::mem::take(&mut known.sync_folder)
        && let Some(folder) = known.path.parent()
        && log.sync_dir(folder).is_err()
    {
        return ffi::SQLITE_IOERR_DIR_FSYNC;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(f: *mut sqlite3_file, to: *mut sqlite3_int64) -> c_int {
    forward!(f, xFileSize, to)
}

unsafe extern "C" fn lock_file(f: *mut sqlite3_file, level: c_int) -> c_int {
    forward!(f, xLock, level)
}

unsafe extern "C" fn unlock_file(f: *mut sqlite3_file, level: c_int) -> c_int {
    forward!(f, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(f: *mut sqlite3_file, to: *mut c_int) -> c_int {
    forward!(f, xCheckReservedLock, to)
}

unsafe extern "C" fn file_control(f: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    forward!(f, xFileControl, op, arg)
}

unsafe extern "C" fn sector_size(f: *mut sqlite3_file) -> c_int {
    forward!(f, xSectorSize)
}

unsafe extern "C" fn device_characteristics(f: *mut sqlite3_file) -> c_int {
    forward!(f, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    f: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    forward!(f, xShmMap, page, size, extend, to)
}

unsafe extern "C" fn shm_lock(f: *mut sqlite3_file, at: c_int, n: c_int, flags: c_int) -> c_int {
    forward!(f, xShmLock, at, n, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: as in `forward`; this method has no result.
    unsafe {
        let real = real(file);
        if let Some(method) = (*(*real).pMethods).xShmBarrier {
            method(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(f: *mut sqlite3_file, delete: c_int) -> c_int {
    forward!(f, xShmUnmap, delete)
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: a VFS of ours and a C string.
    unsafe {
        let us = registered(vfs);
        let Some(delete) = (*us.real).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        // The real one is not asked to sync: the log does.
        let outcome = delete(us.real, name, 0);
        if outcome == ffi::SQLITE_OK
            && let Some(path) = path_of(name)
        {
            let mut log = lock(&us.log);
            log.forget(&path);
            if sync_dir != 0
                && let Some(folder) = path.parent()
                && log.sync_dir(folder).is_err()
            {
                return ffi::SQLITE_IOERR_DIR_FSYNC;
            }
        }
        outcome
    }
}

/// Calls a function of the real VFS.
macro_rules! forward_vfs {
    ($vfs:ident, $function:ident, $missing:expr $(, $arg:expr)*) => {{
        // SAFETY: a VFS of ours; the real one lives for ever; the arguments are handed on as they
        // came.
        unsafe {
            let real = registered($vfs).real;
            match (*real).$function {
                Some(function) => function(real $(, $arg)*),
                None => $missing,
            }
        }
    }};
}

unsafe extern "C" fn access(
    v: *mut sqlite3_vfs,
    n: *const c_char,
    f: c_int,
    o: *mut c_int,
) -> c_int {
    forward_vfs!(v, xAccess, ffi::SQLITE_IOERR_ACCESS, n, f, o)
}

unsafe extern "C" fn full_pathname(
    v: *mut sqlite3_vfs,
    name: *const c_char,
    n: c_int,
    to: *mut c_char,
) -> c_int {
    forward_vfs!(v, xFullPathname, ffi::SQLITE_CANTOPEN, name, n, to)
}

unsafe extern "C" fn randomness(v: *mut sqlite3_vfs, n: c_int, to: *mut c_char) -> c_int {
    forward_vfs!(v, xRandomness, 0, n, to)
}

unsafe extern "C" fn sleep(v: *mut sqlite3_vfs, us: c_int) -> c_int {
    forward_vfs!(v, xSleep, 0, us)
}

unsafe extern "C" fn current_time(v: *mut sqlite3_vfs, to: *mut f64) -> c_int {
    forward_vfs!(v, xCurrentTime, ffi::SQLITE_ERROR, to)
}

unsafe extern "C" fn current_time_int64(v: *mut sqlite3_vfs, to: *mut sqlite3_int64) -> c_int {
    forward_vfs!(v, xCurrentTimeInt64, ffi::SQLITE_ERROR, to)
}

unsafe extern "C" fn last_error(v: *mut sqlite3_vfs, n: c_int, to: *mut c_char) -> c_int {
    forward_vfs!(v, xGetLastError, 0, n, to)
}
