// A GCS server for tests: fake-gcs-server, and what it lacks of the XML API that the broker's client speaks, which is PUT
// of an object with a precondition, and lists that begin behind a key. Objects are in memory and gone with the process.
//
// With -careless it takes x-goog-if-generation-match and ignores it, as servers do that do not know the header.
package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// What fake-gcs-server serves itself, beside `/bucket/object`.
var apis = map[string]bool{"storage": true, "upload": true, "download": true, "batch": true, "_internal": true}

var listed = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)

type server struct {
	inner    http.Handler
	careless bool
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	after := r.URL.Query().Get("start-after")
	switch {
	case r.Method == http.MethodPut && object != "" && !apis[bucket]:
		s.put(w, r, bucket, object)
	case r.Method == http.MethodGet && object == "" && after != "":
		s.list(w, r, after)
	default:
		s.inner.ServeHTTP(w, r)
	}
}

// put goes through the JSON API, which checks preconditions and writes under one lock.
func (s *server) put(w http.ResponseWriter, r *http.Request, bucket, object string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	query := url.Values{"uploadType": {"media"}, "name": {object}}
	if match := r.Header.Get("x-goog-if-generation-match"); match != "" && !s.careless {
		query.Set("ifGenerationMatch", match)
	}
	target := "/upload/storage/v1/b/" + url.PathEscape(bucket) + "/o?" + query.Encode()
	answer := s.ask(httptest.NewRequest(http.MethodPost, target, bytes.NewReader(body)))
	var made struct{ Generation, Etag string }
	if answer.Code == http.StatusOK {
		if err := json.Unmarshal(answer.Body.Bytes(), &made); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("ETag", `"`+strings.Trim(made.Etag, `"`)+`"`)
		w.Header().Set("x-goog-generation", made.Generation)
		return
	}
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// list leaves out what is not behind the key. One answer is the whole list: fake-gcs-server makes no pages.
func (s *server) list(w http.ResponseWriter, r *http.Request, after string) {
	answer := s.ask(r)
	kept := listed.ReplaceAllFunc(answer.Body.Bytes(), func(entry []byte) []byte {
		var found struct{ Key string }
		if xml.Unmarshal(entry, &found) == nil && found.Key <= after {
			return nil
		}
		return entry
	})
	w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
	w.WriteHeader(answer.Code)
	w.Write(kept)
}

func (s *server) ask(r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	s.inner.ServeHTTP(answer, r)
	return answer
}

func main() {
	address := flag.String("address", "127.0.0.1:4443", "where to listen")
	bucket := flag.String("bucket", "woodpecker", "a bucket to begin with")
	careless := flag.Bool("careless", false, "ignore preconditions of PUT")
	flag.Parse()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, PublicHost: *address})
	if err != nil {
		log.Fatal(err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: *bucket})
	log.Fatal(http.ListenAndServe(*address, &server{inner: fake.HTTPHandler(), careless: *careless}))
}
