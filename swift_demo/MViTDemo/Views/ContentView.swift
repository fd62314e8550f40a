import MViTCoreML
import MViTKit
import PhotosUI
import SwiftUI
import UIKit

/// The app's one screen: a picture, and beside or below it what the model says.
struct ContentView: View {
  @Bindable var demo: DemoModel
  @State private var chosen: PhotosPickerItem?
  @State private var isChoosingPhoto = false
  @State private var isOpeningModel = false
  @State private var isShowingSettings = false
  @State private var isShowingSelfTest = false
  @Environment(\.horizontalSizeClass) private var sizeClass
  @Environment(\.openURL) private var openURL

  var body: some View {
    NavigationStack {
      content
        .navigationTitle(demo.selected?.name ?? "MViT Demo")
        .navigationBarTitleDisplayMode(.inline)
        .toolbar { toolbar }
    }
    .photosPicker(
      isPresented: $isChoosingPhoto, selection: $chosen, matching: .images,
      // As it is stored: a picture that Photos converts first has other pixels.
      preferredItemEncoding: .current
    )
    .fileImporter(
      isPresented: $isOpeningModel, allowedContentTypes: ModelFileTypes.all,
      allowsMultipleSelection: false
    ) { result in
      demo.openModel(result)
    }
    .sheet(isPresented: $isShowingSettings) { SettingsView(demo: demo) }
    .sheet(isPresented: $isShowingSelfTest) { SelfTestView(demo: demo) }
    .onChange(of: chosen) { _, item in
      guard let item else { return }
      Task { await load(item) }
    }
  }

  private var content: some View {
    VStack(spacing: 12) {
      Picker("Source", selection: $demo.mode) {
        ForEach(DemoModel.Mode.allCases) { mode in
          Text(mode.title).tag(mode)
        }
      }
      .pickerStyle(.segmented)
      .padding(.horizontal)
      if let problem = demo.problem {
        ProblemView(problem: problem, act: act)
      } else {
        answerLayout {
          picture
            .frame(maxWidth: .infinity, maxHeight: .infinity)
          AnswerView(demo: demo)
            .frame(maxWidth: sizeClass == .regular ? 360 : .infinity)
        }
      }
    }
    .padding(.vertical, 8)
  }

  private var answerLayout: AnyLayout {
    sizeClass == .regular
      ? AnyLayout(HStackLayout(alignment: .top, spacing: 16))
      : AnyLayout(VStackLayout(spacing: 12))
  }

  @ViewBuilder private var picture: some View {
    switch demo.mode {
    case .photo: PhotoView(demo: demo) { isChoosingPhoto = true }
    case .camera: CameraView(demo: demo)
    }
  }

  @ToolbarContentBuilder private var toolbar: some ToolbarContent {
    ToolbarItem(placement: .topBarLeading) {
      ModelMenu(demo: demo) { isOpeningModel = true }
    }
    ToolbarItem(placement: .topBarTrailing) {
      Button {
        isChoosingPhoto = true
      } label: {
        Label("Choose Photo", systemImage: "photo.on.rectangle")
      }
    }
    ToolbarItem(placement: .topBarTrailing) {
      Menu {
        Button {
          isShowingSettings = true
        } label: {
          Label("Compute Units and Latency", systemImage: "speedometer")
        }
        Button {
          isShowingSelfTest = true
        } label: {
          Label("Self-Test", systemImage: "checkmark.seal")
        }
      } label: {
        Label("More", systemImage: "ellipsis.circle")
      }
    }
  }

  private func act(_ remedy: AppProblem.Remedy) {
    switch remedy {
    case .openSettings:
      if let url = URL(string: UIApplication.openSettingsURLString) { openURL(url) }
    case .choosePhoto: isChoosingPhoto = true
    case .openModel: isOpeningModel = true
    case .retry: demo.retry()
    }
  }

  private func load(_ item: PhotosPickerItem) async {
    do {
      guard let data = try await item.loadTransferable(type: Data.self) else {
        return demo.refusePhoto(localized("Photos gave no data for this picture."))
      }
      demo.choose(data)
    } catch {
      demo.refusePhoto(error.localizedDescription)
    }
    chosen = nil
  }
}
