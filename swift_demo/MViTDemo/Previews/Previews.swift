// Only Apple's toolchain has the macro.
#if DEBUG && canImport(DeveloperToolsSupport)
import MViTKit
import SwiftUI

#Preview("App") {
  ContentView(demo: DemoModel(loader: PreviewLoading()))
}

#Preview("Classification") {
  ClassificationView(
    scores: [
      ClassScore(index: 0, label: "one", score: 0.7),
      ClassScore(index: 1, label: "two", score: 0.2),
    ]
  )
  .padding()
}

#Preview("Camera paused") {
  ProblemView(problem: .cameraInterrupted(.multitasking)) { _ in }
}
#endif
