//! Records of one turn, written together.

use std::pin::{Pin, pin};
use std::task::{Context, Wake, Waker};

use super::*;

/// Polls what writes, as the runtime does when the turn is over.
fn end_turn(writer: &mut Pin<&mut impl Future<Output = ()>>) {
    assert!(writer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

fn poll(receipt: &mut Receipt) -> Poll<Result<(), AuditError>> {
    Pin::new(receipt).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_records_of_a_turn_are_one_write_and_pending_until_then() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let mut receipts: Vec<Receipt> =
        ["a", "b", "c"].iter().map(|name| append(&log, Class::Normal, name).unwrap()).collect();
    assert!(receipts.iter_mut().all(|receipt| poll(receipt).is_pending()));
    assert!(disk.records().is_empty());
    let before = disk.0.lock().writes;
    end_turn(&mut writer);
    assert_eq!(disk.0.lock().writes, before + 1);
    assert_eq!(story(&disk.records()), ["a", "b", "c"]);
    assert!(receipts.iter_mut().all(|receipt| matches!(poll(receipt), Poll::Ready(Ok(())))));
}

#[test]
fn who_writes_is_woken_once_a_turn_and_who_waits_when_it_is_written() {
    #[derive(Default)]
    struct Count(Mutex<usize>);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            *self.0.lock() += 1;
        }
    }
    let (_, log) = on_disk(AuditPolicy::Written);
    let (of_writer, of_session) = (Arc::<Count>::default(), Arc::<Count>::default());
    let (writes, waits) = (Waker::from(Arc::clone(&of_writer)), Waker::from(Arc::clone(&of_session)));
    let mut writer = pin!(log.gather());
    let mut turn = || assert!(writer.as_mut().poll(&mut Context::from_waker(&writes)).is_pending());
    turn();
    let mut receipt = append(&log, Class::Normal, "a").unwrap();
    let _other = append(&log, Class::Normal, "b").unwrap();
    assert!(Pin::new(&mut receipt).poll(&mut Context::from_waker(&waits)).is_pending());
    assert_eq!((*of_writer.0.lock(), *of_session.0.lock()), (1, 0));
    turn();
    assert_eq!((*of_writer.0.lock(), *of_session.0.lock()), (1, 1));
}

#[test]
fn a_turn_that_cannot_be_written_leaves_no_trace_but_its_emergencies() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    normal_turn(&log, &mut writer, "before");
    let mut refused = append(&log, Class::Normal, "refused").unwrap();
    let mut emergency = append(&log, Class::Emergency, "emergency").unwrap();
    // Room for some of it.
    disk.set(|disk| disk.room = Some(100));
    end_turn(&mut writer);
    assert!(matches!(poll(&mut refused), Poll::Ready(Err(_))));
    assert!(matches!(poll(&mut emergency), Poll::Ready(Ok(()))));
    assert_eq!(story(&disk.records()), ["before"]);
    // From now on each is answered at once.
    assert!(append(&log, Class::Normal, "refused, too").is_err());
    disk.set(|disk| disk.room = None);
    normal_turn(&log, &mut writer, "after");
    let records = disk.records();
    assert_eq!(story(&records), ["before", "emergency", "audit_log", "after"]);
    let numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(records[1]["spooled"], true);
}

#[test]
fn a_record_behind_a_turn_that_failed_does_not_overtake_its_emergencies() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let receipts: Vec<Receipt> =
        (0..8).map(|n| append(&log, Class::Emergency, &format!("emergency {n}")).unwrap()).collect();
    // Room for one record, not for eight.
    disk.set(|disk| disk.room = Some(900));
    let event = Event { kind: EventKind::Reload, who: None, sqlstate: None, detail: "", config: "" };
    log.event(&event, SystemTime::now()).unwrap().wait().unwrap();
    receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
    disk.set(|disk| disk.room = None);
    normal_turn(&log, &mut writer, "after");
    let records = disk.records();
    let told = story(&records);
    assert_eq!(told[..2], ["emergency 0", "emergency 1"]);
    assert_eq!(told[7..], ["emergency 7", "reload", "audit_log", "after"]);
    assert!(records.iter().zip(1..).all(|(record, seq)| record["seq"] == seq));
}

/// A turn with one record.
fn normal_turn(log: &AuditLog, writer: &mut Pin<&mut impl Future<Output = ()>>, name: &str) {
    let mut receipt = append(log, Class::Normal, name).unwrap();
    end_turn(writer);
    assert!(matches!(poll(&mut receipt), Poll::Ready(Ok(()))), "{name} is written");
}

#[test]
fn who_is_alone_does_not_wait_and_finds_out_when_others_come() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let mut gathered = 0;
    let mut at_once = 0;
    for n in 0..64 {
        match append(&log, Class::Normal, &n.to_string()).unwrap() {
            Receipt::Done => at_once += 1,
            Receipt::Pending(_) => gathered += 1,
        }
        end_turn(&mut writer);
    }
    assert!(at_once > 50 && gathered > 4, "{at_once} at once, {gathered} at the end of their turn");
    // As soon as a turn is shared, turns are waited for again.
    let shared = (0..64).find(|n| {
        let first = append(&log, Class::Normal, &format!("first of {n}")).unwrap();
        let second = append(&log, Class::Normal, &format!("second of {n}")).unwrap();
        end_turn(&mut writer);
        matches!((first, second), (Receipt::Pending(_), Receipt::Pending(_)))
    });
    assert!(shared.is_some());
    assert!(matches!(append(&log, Class::Normal, "one more").unwrap(), Receipt::Pending(_)));
    end_turn(&mut writer);
    let records = disk.records();
    assert!(records.iter().zip(1..).all(|(record, seq)| record["seq"] == seq), "in order and without a gap");
}

#[test]
fn events_stand_behind_what_was_recorded_before_them() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let mut receipt = append(&log, Class::Normal, "a").unwrap();
    let event = Event { kind: EventKind::Reload, who: None, sqlstate: None, detail: "", config: "" };
    log.event(&event, SystemTime::now()).unwrap().wait().unwrap();
    assert!(matches!(poll(&mut receipt), Poll::Ready(Ok(()))));
    assert_eq!(story(&disk.records()), ["a", "reload"]);
}

#[test]
fn refusals_are_written_before_they_are_told() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let mut receipt = append(&log, Class::Normal, "a").unwrap();
    let refused = Outcome::Refused { reason: "sovereignty", sqlstate: "PW005", detail: "not from here" };
    assert!(matches!(append_as(&log, Class::Normal, "b", refused).unwrap(), Receipt::Done));
    assert_eq!(story(&disk.records()), ["a", "b"]);
    assert!(matches!(poll(&mut receipt), Poll::Ready(Ok(()))));
}

#[test]
fn much_in_one_turn_is_not_held_back() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    let receipts: Vec<Receipt> = (0..1000).map(|n| append(&log, Class::Normal, &n.to_string()).unwrap()).collect();
    assert!(disk.records().len() > 500);
    end_turn(&mut writer);
    assert_eq!(disk.records().len(), 1000);
    receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
}

#[test]
fn without_a_writer_records_are_written_at_once() {
    let (disk, log) = on_disk(AuditPolicy::Written);
    {
        let mut writer = pin!(log.gather());
        end_turn(&mut writer);
        let _receipt = append(&log, Class::Normal, "a").unwrap();
    }
    assert_eq!(story(&disk.records()), ["a"], "the writer's end is the end of the turn");
    assert!(matches!(append(&log, Class::Normal, "b").unwrap(), Receipt::Done));
    assert_eq!(story(&disk.records()), ["a", "b"]);
}

#[test]
fn rotation_waits_for_the_turn() {
    let folder = TempDir::new().unwrap();
    let (path, log) = in_folder(&folder, Some(2000));
    let mut writer = pin!(log.gather());
    end_turn(&mut writer);
    for n in 0..40 {
        let _receipt = append(&log, Class::Normal, &n.to_string()).unwrap();
        if n % 7 == 0 {
            end_turn(&mut writer);
        }
    }
    end_turn(&mut writer);
    let files = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<PathBuf> = files().filter(|name| *name != path).collect();
    assert!(names.len() > 3, "{names:?}");
    names.sort();
    names.push(path);
    let records = names.iter().flat_map(|name| read::records(name).unwrap());
    assert!(records.zip(1..=40).all(|(record, seq)| record["seq"] == seq));
}
