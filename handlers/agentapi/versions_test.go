package agentapi

import (
	"testing"
	"testing/synctest"
	"time"

	"resticfleet/jobs"
	"resticfleet/models"
)

func TestVersionsAreBelievedOnlyWhileTheDatabaseIsWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, host, token := newVersions(), models.NewID[models.HostID](), models.HashToken("a")
		v.believe(time.Now().Add(trust))
		v.keep(token, host, 7, v.before(host))
		if got, ok := v.get(token); !ok || got != 7 {
			t.Fatalf("get = %d, %v, want 7", got, ok)
		}
		<-time.After(trust + time.Nanosecond)
		if _, ok := v.get(token); ok {
			t.Error("believed although nobody watched for longer than trust")
		}
		v.believe(time.Now().Add(trust))
		if _, ok := v.get(token); !ok {
			t.Error("not believed again although the watch is back and found no change")
		}
	})
}

func TestAChangeIsForgottenBeforeItsPublisherGoesOn(t *testing.T) {
	t.Parallel()
	v, host, token := newVersions(), models.NewID[models.HostID](), models.HashToken("a")
	v.believe(time.Now().Add(time.Hour))
	v.keep(token, host, 7, v.before(host))
	v.heard([]jobs.Topic{jobs.FleetTopic, jobs.DispatchTopic(host)})
	if _, ok := v.get(token); ok {
		t.Error("the old version is still given")
	}
}

// An answer that left the database before a change must not be remembered
// after it.
func TestAnAnswerOvertakenByAChangeIsNotKept(t *testing.T) {
	t.Parallel()
	v, host, token := newVersions(), models.NewID[models.HostID](), models.HashToken("a")
	v.believe(time.Now().Add(time.Hour))
	mark := v.before(host)
	v.forget(host)
	v.keep(token, host, 7, mark)
	if _, ok := v.get(token); ok {
		t.Error("kept a version from before the change")
	}
}

func TestANewCredentialEndsTheOld(t *testing.T) {
	t.Parallel()
	v, host := newVersions(), models.NewID[models.HostID]()
	v.believe(time.Now().Add(time.Hour))
	v.keep(models.HashToken("old"), host, 7, v.before(host))
	v.keep(models.HashToken("new"), host, 7, v.before(host))
	if _, ok := v.get(models.HashToken("old")); ok {
		t.Error("two credentials of one host are remembered")
	}
}

// A database that was away may be an older copy when it is back: nothing from
// before is believed, nor an answer that was under way.
func TestNothingIsBelievedAcrossAGap(t *testing.T) {
	t.Parallel()
	v, host, token := newVersions(), models.NewID[models.HostID](), models.HashToken("a")
	v.believe(time.Now().Add(time.Hour))
	v.keep(token, host, 7, v.before(host))
	under := v.before(host)
	v.clear()
	if _, ok := v.get(token); ok {
		t.Error("a version from before the gap is given")
	}
	v.keep(token, host, 7, under)
	if _, ok := v.get(token); ok {
		t.Error("an answer from before the gap is kept")
	}
	v.keep(token, host, 8, v.before(host))
	if got, ok := v.get(token); !ok || got != 8 {
		t.Errorf("after the gap: %d, %v", got, ok)
	}
}
