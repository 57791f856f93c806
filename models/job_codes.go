package models

// Error codes of jobs that ended without a word of their agent's, beside those
// of the agent protocol. Every code that this server gives a job stands here or
// there: the pages have a cause and a remedy for each.
const (
	CodeExpired           = "expired"             // its host never came for it
	CodeHostSilent        = "host_silent"         // its host had it and fell silent
	CodeJournalLost       = "journal_lost"        // its agent no longer knows it
	CodeNoRepositoryBound = "no_repository_bound" // its host has no repository
	CodeOtherRepository   = "other_repository"    // its host got another one before it was accepted
	CodeStillBusy         = "still_busy"          // the last one of this kind has not ended
	CodeNothingToDo       = "nothing_to_do"       // no group of the host has a retention policy
	CodeNotOwner          = "not_owner"           // another host prunes and checks the shared repository
	CodeBackingOff        = "backing_off"         // it failed, and is not tried again at once
	CodeBreakerOpen       = "breaker_open"        // it failed too often to be tried by itself
)
