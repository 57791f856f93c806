package live_test

import (
	"testing"

	"resticfleet/models/modeltest"
)

func TestMain(m *testing.M) { modeltest.Main(m) }
