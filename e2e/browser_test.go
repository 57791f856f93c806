package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/playwright-community/playwright-go"
)

// browser is the one Chromium of all tests, started by the first that needs it.
var browser chromium

type chromium struct {
	once sync.Once
	err  error
	pw   *playwright.Playwright
	playwright.Browser
}

// start is safe to call from every test.
func (b *chromium) start() error {
	b.once.Do(func() { b.err = b.launch() })
	return b.err
}

func (b *chromium) launch() error {
	options := &playwright.RunOptions{DriverDirectory: driverDir(), SkipInstallBrowsers: true}
	program := systemChromium()
	if options.DriverDirectory == "" || program == "" {
		// No driver or browser on this system: Playwright brings its own.
		options.SkipInstallBrowsers, options.Browsers = program != "", []string{"chromium"}
		if err := playwright.Install(options); err != nil {
			return fmt.Errorf("no browser: run `make tools`, or let Playwright install one: %w", err)
		}
	}
	if os.Getenv("PLAYWRIGHT_NODEJS_PATH") == "" {
		if node, err := exec.LookPath("node"); err == nil {
			if err := os.Setenv("PLAYWRIGHT_NODEJS_PATH", node); err != nil {
				return err
			}
		}
	}
	var err error
	if b.pw, err = playwright.Run(options); err != nil {
		return err
	}
	launch := playwright.BrowserTypeLaunchOptions{
		Args: []string{"--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"},
	}
	if program != "" {
		launch.ExecutablePath = playwright.String(program)
	}
	if b.Browser, err = b.pw.Chromium.Launch(launch); err != nil {
		return errors.Join(err, b.pw.Stop())
	}
	return nil
}

// driverDir is where `make tools` put the driver, "" when it didn't.
func driverDir() string {
	dirs := []string{os.Getenv("PLAYWRIGHT_DRIVER_PATH"), filepath.Join(filepath.Dir(filepath.Dir(suite.results)), "bin", "playwright")}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "package", "cli.js")); err == nil {
			return dir
		}
	}
	return ""
}

func systemChromium() string {
	// The headless shell is the same engine without a window's machinery: a fifth
	// less work for these tests.
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// stop ends the browser, if there is one.
func (b *chromium) stop() error {
	if b.Browser == nil {
		return nil
	}
	return errors.Join(b.Close(), b.pw.Stop())
}
