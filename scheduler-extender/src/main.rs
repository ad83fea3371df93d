//! The program `spillway`.

fn main() -> std::process::ExitCode {
    scheduler_extender::cli::main()
}
