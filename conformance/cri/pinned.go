//go:build pinned

// Package cri keeps in go.mod what critest needs: it is a test, which no tool line can name.
package cri

import _ "sigs.k8s.io/cri-tools/pkg/validate"
