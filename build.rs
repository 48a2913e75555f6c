//! Bakes the commit into the binary, for `bench`; compiles each `kernels/*.cu` with nvcc into one
//! fatbin, which all profiles share, and lists them in `$OUT_DIR/kernels.rs`.
//!
//! nvcc is looked for in NVCC, CUDA_HOME, CUDA_PATH, `target/cuda` (filled by `scripts/get-nvcc`),
//! PATH and /usr/local/cuda. Without one the build is for the CPU and says so once;
//! `REQUIRE_CUDA=1` makes that an error. `GPU_ARCHS="90a"` shortens the list of targets.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs};

/// What the fatbins hold code for, besides PTX of compute_80 for everything newer.
const ARCHS: &str = "80 86 89 90a";

fn main() {
    commit();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "REQUIRE_CUDA", "GPU_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed={FETCHED}");

    let kernels = kernels();
    let compiled = match find_nvcc() {
        Some(nvcc) => compile(&nvcc, &kernels, &out).map(Some),
        None => Ok(None),
    };
    let problem = match &compiled {
        Ok(Some(_)) => None,
        Ok(None) => Some(
            "no nvcc found: this build has no CUDA kernels (scripts/get-nvcc fetches one)"
                .to_string(),
        ),
        Err(message) => Some(message.clone()),
    };
    if let Some(problem) = &problem {
        assert!(env::var_os("REQUIRE_CUDA").is_none(), "{problem}");
        println!("cargo::warning={problem}");
    }
    list(&kernels, compiled.ok().flatten().as_deref(), &out);
}

/// The commit; "unknown" where there is no git.
fn commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=LAWSMITH_COMMIT={commit}");
    // Changes with every commit and checkout; where it is missing only this file is watched.
    let log =
        git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists());
    println!("cargo::rerun-if-changed={}", log.as_deref().unwrap_or("build.rs"));
}

const FETCHED: &str = "target/cuda/nvidia/cu13/bin/nvcc";

/// The kernel files, sorted.
fn kernels() -> Vec<PathBuf> {
    let folder = fs::read_dir("kernels").expect("the folder kernels/");
    let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    files.sort();
    files
}

fn find_nvcc() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(named);
    let homes = homes.map(|home| Path::new(&home).join("bin/nvcc"));
    let on_path = named("PATH").into_iter();
    let on_path = on_path.flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    named("NVCC")
        .map(PathBuf::from)
        .into_iter()
        .chain(homes)
        .chain([PathBuf::from(FETCHED)])
        .chain(on_path.map(|folder| folder.join("nvcc")))
        .chain([PathBuf::from("/usr/local/cuda/bin/nvcc")])
        .find(|path| path.is_file())
}

/// Two compilers at a time: each takes some hundred megabytes. The folder of the fatbins.
fn compile(nvcc: &Path, kernels: &[PathBuf], out: &Path) -> Result<PathBuf, String> {
    let archs = env::var("GPU_ARCHS").unwrap_or(ARCHS.into());
    let sources = fingerprint(nvcc, &archs).map_err(|e| format!("cannot read kernels/: {e}"))?;
    // This script runs at every commit, for every profile and set of features; the kernels are compiled
    // when they or the compiler changed. $OUT_DIR is target/PROFILE/build/PACKAGE/out.
    let target = out.ancestors().nth(4).unwrap_or(out);
    let done = target.join("kernels").join(&sources);
    if done.is_dir() {
        return Ok(done);
    }
    let out = &done.with_extension("unfinished");
    let cannot = |e| format!("cannot write {}: {e}", out.display());
    fs::remove_dir_all(target.join("kernels")).or_else(absent).map_err(cannot)?;
    fs::create_dir_all(out).map_err(cannot)?;
    // The longest ones first: the last compiler should not work alone for minutes.
    let mut queue = kernels.to_vec();
    queue.sort_by_key(|kernel| fs::metadata(kernel).map_or(0, |file| file.len()));
    let queue = Mutex::new(queue);
    let work = || loop {
        let next = queue.lock().expect("no compiler panics").pop();
        let Some(kernel) = next else { return Ok(()) };
        let failed = |why: String| format!("{} on {}: {why}", nvcc.display(), kernel.display());
        let mut command = Command::new(nvcc);
        command.args(["-fatbin", "-std=c++20", "-O3", "-lineinfo", "-o"]);
        command.arg(fatbin(out, &kernel)).arg(&kernel);
        for arch in archs.split_whitespace() {
            command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        }
        command.arg("-gencode=arch=compute_80,code=compute_80");
        let output = command.output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(failed(text.lines().take(5).collect::<Vec<_>>().join(" | ")));
        }
    };
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|_| scope.spawn(work));
        workers.into_iter().try_for_each(|worker| worker.join().expect("no compiler panics"))
    })?;
    fs::rename(out, &done).map_err(cannot)?;
    Ok(done)
}

/// What is not there need not be removed.
fn absent(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

/// Everything that the fatbins are made from.
fn fingerprint(nvcc: &Path, archs: &str) -> std::io::Result<String> {
    let mut hasher = DefaultHasher::new();
    (nvcc, archs).hash(&mut hasher);
    for folder in ["kernels", "kernels/common"] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            (file, fs::read(file)?).hash(&mut hasher);
        }
    }
    Ok(format!("{:x}", hasher.finish()))
}

fn fatbin(out: &Path, kernel: &Path) -> PathBuf {
    out.join(kernel.file_name().expect("a file")).with_extension("fatbin")
}

/// `kernels.rs`: the embedded modules by name, or the names with nothing to load.
fn list(kernels: &[PathBuf], compiled: Option<&Path>, out: &Path) {
    let module = |kernel: &PathBuf| {
        let name = kernel.file_stem().expect("a file").to_string_lossy();
        let image = match compiled {
            Some(folder) => format!("include_bytes!({:?})", fatbin(folder, kernel)),
            None => "b\"\\0\"".to_string(),
        };
        format!("    ({name:?}, {image}),\n")
    };
    let modules: String = kernels.iter().map(module).collect();
    let text = format!(
        "/// Whether nvcc compiled the modules.\npub(super) const COMPILED: bool = {};\n\
         /// Name and fatbin of each kernel file.\n\
         pub(super) static MODULES: &[(&str, &[u8])] = &[\n{modules}];\n",
        compiled.is_some(),
    );
    fs::write(out.join("kernels.rs"), text).expect("OUT_DIR can be written");
}
