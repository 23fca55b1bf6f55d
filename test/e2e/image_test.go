package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

const (
	// tag is that of all images made here.
	tag       = "e2e"
	gateName  = "sentinel-gate"
	podsName  = "sentinel-gate-e2e-pods"
	kuredName = "sentinel-gate-e2e-kured"
)

// image is made without a builder and without a base: one layer of static
// binaries.
type image struct {
	name       string
	entrypoint string
	user       string
	files      map[string]string // path in the image to file on this machine
	links      map[string]string // path in the image to target
}

// write writes an archive as "docker save" does, which every runtime imports.
func (i image) write(archive string) error {
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("making image %s: %w", i.name, err)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(layer))
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": runtime.GOARCH,
		"config": map[string]any{"Entrypoint": []string{i.entrypoint}, "User": i.user, "Env": []string{"PATH=/"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]manifest{{Config: "config.json", RepoTags: []string{i.name + ":" + tag}, Layers: []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"layer.tar", layer}, {"config.json", config}, {"manifest.json", manifest}} {
		if err := add(w, &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))}, f.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(archive, b.Bytes(), 0o644)
}

func (i image) layer() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{".": true, "/": true}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		content, err := os.ReadFile(i.files[name])
		if err != nil {
			return nil, err
		}
		if err := errors.Join(parents(w, made, name), add(w, &tar.Header{Name: relative(name), Mode: 0o755, Size: int64(len(content))}, content)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.links)) {
		if err := errors.Join(parents(w, made, name), add(w, &tar.Header{Name: relative(name), Typeflag: tar.TypeSymlink, Linkname: i.links[name]}, nil)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// parents adds the directories above a file that are not there yet.
func parents(w *tar.Writer, made map[string]bool, name string) error {
	dir := path.Dir(name)
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := parents(w, made, dir); err != nil {
		return err
	}
	return add(w, &tar.Header{Name: relative(dir) + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
}

func relative(name string) string { return strings.TrimPrefix(name, "/") }

func add(w *tar.Writer, header *tar.Header, content []byte) error {
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// manifest is what is in such an archive.
type manifest struct {
	Config           string
	RepoTags, Layers []string
}

// nameOf returns the name with tag of the image in an archive of "docker save".
func nameOf(archive string) (string, error) {
	file, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the name of the image in %s: %w: manifest.json; is it an archive of docker save?", archive, fs.ErrNotExist)
		}
		if err != nil {
			return "", fmt.Errorf("reading the name of the image in %s: %w", archive, err)
		}
		if header.Name != "manifest.json" {
			continue
		}
		var images []manifest
		if err := json.NewDecoder(r).Decode(&images); err != nil || len(images) != 1 || len(images[0].RepoTags) == 0 {
			return "", fmt.Errorf("reading the name of the image in %s: want one image with a tag: %w", archive, err)
		}
		return images[0].RepoTags[0], nil
	}
}

// makeImages makes the images that every node imports, in dir, of the programs
// in bin, and returns the name of kured's. That is our own stand-in, unless
// KURED_IMAGE names the archive of an image of kured, or KURED_BIN a static kured.
func makeImages(bin, dir string) (kured string, err error) {
	images := []image{
		{
			name: gateName, entrypoint: "/sentinel-gate", user: "9817:9817",
			files: map[string]string{"/sentinel-gate": bin + "/sentinel-gate"},
		},
		{
			name: podsName, entrypoint: "/pause", files: map[string]string{"/pods": bin + "/pods"},
			links: map[string]string{"/pause": "pods", "/flanneld": "pods", "/chown": "pods"},
		},
	}
	kured = kuredName + ":" + tag
	if archive := os.Getenv("KURED_IMAGE"); archive != "" {
		if kured, err = nameOf(archive); err != nil {
			return "", err
		}
		if err := copyFile(archive, dir+"/kured.tar"); err != nil {
			return "", err
		}
	} else {
		binary := cmp.Or(os.Getenv("KURED_BIN"), bin+"/pods")
		images = append(images, image{name: kuredName, entrypoint: "/usr/bin/kured", files: map[string]string{"/usr/bin/kured": binary}})
	}
	for _, i := range images {
		if err := i.write(dir + "/" + i.name + ".tar"); err != nil {
			return "", err
		}
	}
	return kured, nil
}
