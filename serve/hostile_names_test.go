package serve_test

import (
	"fmt"
	"strings"
	"testing"

	"spos/serve"
)

// hostileNames is names of models, versions and files: numbers 29, 30 and 32.
func hostileNames() []hostile {
	whole := jsonBody("[1,3]", "[1,2,3]")
	var rows []hostile
	none := func(t *testing.T, g *ground, _ reply) {
		t.Helper()
		g.shelf.change(func() {
			if len(g.shelf.loads) > 0 {
				t.Errorf("loaded %v", g.shelf.loads)
			}
		})
	}
	for name, load := range map[string]int{
		"..%2f..%2fetc": 400, "..%2F..%2Fetc%2Fpasswd": 400, "%2e%2e": 400, "..": 400, "a%00b": 400, `a\..\b`: 400, "a%5c..%5cb": 400,
		"%20..": 404, "%20": 400, ".": 404, "...": 404, "%d0%bc": 404, "%ef%bd%8d": 404, "m%e2%80%8b": 400, "m%20": 404, "%ff%fe": 400,
		"%2fetc%2fpasswd": 400, "con": 404, "m%3a%3a$DATA": 404, strings.Repeat("x", 10<<10): 400,
	} {
		short := fmt.Sprintf("%.30s", name)
		rows = append(rows,
			hostile{n: 29, name: "infer " + short, send: request("POST", "/v2/models/"+name+"/infer", whole), codes: []int{404}},
			hostile{n: 29, name: "metadata " + short, send: request("GET", "/v2/models/"+name, ""), codes: []int{404}},
			hostile{n: 29, name: "load " + short, send: request("POST", "/v2/repository/models/"+name+"/load", ""), codes: []int{load}, also: none},
			hostile{n: 29, name: "unload " + short, send: request("POST", "/v2/repository/models/"+name+"/unload", ""), codes: []int{load}},
		)
	}
	rows = append(rows,
		hostile{n: 29, name: "a path", send: request("POST", "/v2/models/../../etc/passwd/infer", whole), codes: []int{404}, part: "no such path"},
		hostile{n: 29, name: "load a path", send: request("POST", "/v2/repository/models/../../etc/passwd/load", whole), codes: []int{404}, part: "no such path"},
		hostile{n: 29, name: "a broken escape", send: request("GET", "/v2/models/%zz", ""), codes: status400, early: true},
	)
	for _, version := range []string{"-1", "0x1", "99999999999999999999", "01", "1%2f..%2f2", "+1", "1.0", "%201", "%d9%a1", "1%00", "..", "0"} {
		rows = append(rows, hostile{n: 30, name: version, send: request("POST", "/v2/models/m/versions/"+version+"/infer", whole), codes: []int{404}, part: "no version"})
	}
	rows = append(rows, hostile{n: 30, name: "a path", send: request("POST", "/v2/models/m/versions/1/../2/infer", whole), codes: []int{404}, part: "no such path"})
	for name, file := range map[string]string{"up": "../x", "long": strings.Repeat("x", 256), "plain": "1/model.onnx", "empty": ""} {
		body := `{"parameters":{"config":"{}","file:` + file + `":"AAAA"}}`
		// Files and configurations come from the repository alone.
		rows = append(rows,
			hostile{n: 32, name: name, send: request("POST", "/v2/repository/models/m/load", `{"parameters":{"file:`+file+`":"AAAA"}}`), codes: []int{403}, part: "not taken", also: none},
			hostile{n: 32, name: name + ", with config", send: request("POST", "/v2/repository/models/m/load", body), codes: []int{501}, also: none},
		)
	}
	return append(rows,
		hostile{n: 32, name: "2 MiB", send: request("POST", "/v2/repository/models/m/load", `{"parameters":{"file:1/model.onnx":"`+strings.Repeat("A", 2<<20)+`"}}`), codes: []int{413}},
		hostile{n: 32, name: "2 GiB announced", send: early("POST /v2/repository/models/m/load", "Content-Length: 2147483648"), codes: []int{413}},
	)
}

// hostileRepositories is what lies in a repository, and what happens to the process: numbers 31 and 48 to 51.
func hostileRepositories() []hostile {
	return []hostile{
		{n: 31, name: "links, pipes, torn and great files", test: TestHostileRepository},
		{n: 48, name: "a stop under load", test: TestStopLosesNoAcceptedRequest}, // of the process: TestStopUnderLoad, and the command's own tests
		{n: 48, name: "a stop that cannot wait", test: TestStopCutsWhatDoesNotEnd},
		{n: 48, name: "a stop while loading", test: TestStopWhileLoading},
		{n: 49, name: "a broken new version", test: TestBrokenVersionDisturbsNothing}, // 1,000 swaps and memory: TestReloadsUnderLoad
		{n: 49, name: "a new version", test: TestNewVersionTakesOver},
		{n: 50, name: "a log that is closed", test: testClosedLog},
		{n: 50, name: "a log on a full disk", test: testFullLog}, // of the process: TestLogOnFullDisk
		{n: 50, name: "a model that the disk cut short", test: TestHalfWrittenModel},
		{n: 50, name: "a model that cannot be looked at", test: TestModelThatCannotBeReadStays},
		{n: 50, name: "a clock that jumps", test: serve.ClockJumps},
		{n: 50, name: "deadlines by the wall's clock", test: testClocks},
		{n: 50, name: "no descriptors left", test: testNoDescriptors},
		{n: 51, name: "rapid reset", test: TestRapidReset}, // the rest of h2spec's cases: its own long run
		{n: 51, name: "CONTINUATION flood", test: testContinuationFlood},
	}
}
