//! The manifest: any bytes as ledger.json are a manifest that reads the same again, or a typed error.

use std::path::Path;
use std::sync::Arc;

use counterfoil::*;

use super::history::{DIR, history, options, put_manifest, segment_path};
use super::memory::Memory;

pub fn run(data: &[u8]) {
    let dir = Path::new(DIR);
    let disk = Arc::new(Memory::default());
    disk.put(&Manifest::path(dir), data);
    let first: Vec<u8> = history().lines.iter().take(1).flat_map(|place| [&place.line[..], b"\n"].concat()).collect();
    disk.put(&segment_path(dir, 1), first);
    let options = options(&disk, 1);
    let before = disk.files();
    let loaded = Manifest::load(disk.as_ref(), dir);
    let reader = LedgerReader::open(dir, &options);
    let forecast = forecast(dir, &options);
    assert_eq!(disk.files(), before, "looking changes nothing");
    match loaded {
        Ok(Some(manifest)) => {
            let again = Memory::default();
            put_manifest(&again, dir, &manifest);
            assert_eq!(Manifest::load(&again, dir).expect("it was a manifest").as_ref(), Some(&manifest));
            assert!(reader.is_ok());
            match forecast {
                Ok(report) => assert_eq!((report.head.seq, manifest.ledger_id), (Seq::FIRST, history().manifest.ledger_id)),
                Err(LedgerError::Refused(refusal)) => {
                    assert!(matches!(*refusal, Refusal::OtherManifest { .. }), "{refusal}");
                    assert_ne!(manifest.ledger_id, history().manifest.ledger_id);
                }
                Err(other) => panic!("{other}"),
            }
        }
        Ok(None) => panic!("it is there"),
        Err(LedgerError::Manifest { reason, .. }) => {
            assert!(!reason.is_empty());
            assert!(matches!(reader, Err(LedgerError::Manifest { .. })));
            assert!(matches!(forecast, Err(LedgerError::Manifest { .. })));
        }
        Err(LedgerError::FutureFormat { found, known, .. }) => assert_ne!(found, known),
        Err(other) => panic!("{other}"),
    }
}
