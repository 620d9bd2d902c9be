//! stub
use clap::Args;
/// demo
#[derive(Debug, Args)]
pub struct Demo {}
impl Demo {
    pub async fn run(&self, out: &mut super::Out) -> Result<(), super::Failure> {
        Ok(out.line("")?)
    }
}
