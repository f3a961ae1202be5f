//! `demo`: starts a cluster, sends it image jobs while nodes fail, checks every answer and reports.

fn main() -> std::process::ExitCode {
    image_cloud::demo::run::main()
}
